//! Directives and blocks of the file.

use super::super::imported::Remark;

/// The deepest nesting of blocks that is read: real files have four levels.
const DEPTH_MAX: usize = 16;

/// `words;` or `words { block }`.
#[derive(Debug, Default)]
pub(super) struct Directive {
    /// The number of its first line, from 1.
    pub(super) line: usize,
    /// At least one, unless a block has no name.
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Self>>,
}

impl Directive {
    pub(super) fn name(&self) -> &str {
        self.word(0).unwrap_or_default()
    }

    /// The word at an index; 0 is the name.
    pub(super) fn word(&self, at: usize) -> Option<&str> {
        self.words.get(at).map(String::as_str)
    }

    /// The words after the name.
    pub(super) fn arguments(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }

    /// The remark that it is not carried over.
    pub(super) fn left_out(&self, why: &str) -> Remark {
        let block = if self.block.is_some() { " { … }" } else { "" };
        Remark::left_out(self.line, &format!("{}{block}", self.words.join(" ")), why)
    }
}

/// Parses a file. A missing or surplus `}` is not an error.
pub(super) fn parse(text: &str) -> Vec<Directive> {
    // The directives of each block that is open, with the directive that the block belongs to.
    let mut open: Vec<(Directive, Vec<Directive>)> = Vec::new();
    let mut all: Vec<Directive> = Vec::new();
    let mut current = Directive::default();
    for (line, token) in tokens(text) {
        match token {
            StreamToken::Word(word) => {
                if current.words.is_empty() {
                    current.line = line;
                }
                current.words.push(word);
            }
            StreamToken::End if current.words.is_empty() => {}
            StreamToken::End => all.push(std::mem::take(&mut current)),
            StreamToken::Open if open.len() < DEPTH_MAX => {
                open.push((std::mem::take(&mut current), std::mem::take(&mut all)));
            }
            StreamToken::Open => current = Directive::default(),
            StreamToken::Close => {
                current = Directive::default();
                close(&mut open, &mut all);
            }
        }
    }
    while !open.is_empty() {
        close(&mut open, &mut all);
    }
    all
}

/// Ends the innermost block, if there is one.
fn close(open: &mut Vec<(Directive, Vec<Directive>)>, all: &mut Vec<Directive>) {
    if let Some((mut directive, outer)) = open.pop() {
        directive.block = Some(std::mem::replace(all, outer));
        all.push(directive);
    }
}

enum StreamToken {
    Word(String),
    /// `;`
    End,
    Open,
    Close,
}

/// The tokens with their lines.
fn tokens(text: &str) -> Vec<(usize, StreamToken)> {
    let mut tokens = Vec::new();
    let mut line = 1;
    let mut word: Option<String> = None;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\'' if word.is_none() => {
                let mut quoted = String::new();
                while let Some(inside) = chars.next() {
                    line += usize::from(inside == '\n');
                    match inside {
                        '\\' => quoted.extend(chars.next()),
                        end if end == c => break,
                        inside => quoted.push(inside),
                    }
                }
                word = Some(quoted);
                continue;
            }
            '\\' => {
                word.get_or_insert_default()
                    .extend([Some('\\'), chars.next()].into_iter().flatten());
                continue;
            }
            // `${name}` is a variable and not a block.
            '{' if word.as_ref().is_some_and(|word| word.ends_with('$')) => {
                let word = word.get_or_insert_default();
                word.push('{');
                word.extend(chars.by_ref().take_while(|inside| *inside != '}' && *inside != '\n'));
                word.push('}');
                continue;
            }
            '#' if word.is_none() => {
                while chars.next_if(|next| *next != '\n').is_some() {}
                continue;
            }
            _ => {}
        }
        let token = match c {
            ';' => Some(StreamToken::End),
            '{' => Some(StreamToken::Open),
            '}' => Some(StreamToken::Close),
            _ => None,
        };
        if token.is_none() && !c.is_whitespace() {
            word.get_or_insert_default().push(c);
            continue;
        }
        tokens.extend(word.take().map(|word| (line, StreamToken::Word(word))));
        tokens.extend(token.map(|token| (line, token)));
        line += usize::from(c == '\n');
    }
    tokens.extend(word.map(|word| (line, StreamToken::Word(word))));
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_nested_and_words_quoted() {
        let all = parse("a 'b c' \"d\\\"\"; # e;\nstream { map $x ${y} { ~^a\\;b c; } }\n} f;");
        assert_eq!(all[0].words, ["a", "b c", "d\""]);
        let stream = all[1].block.as_ref().unwrap();
        assert_eq!((all[1].line, stream[0].line), (2, 2));
        assert_eq!(stream[0].words, ["map", "$x", "${y}"]);
        assert_eq!(stream[0].block.as_ref().unwrap()[0].words, ["~^a\\;b", "c"]);
        assert_eq!(all[2].words, ["f"]);
    }

    #[test]
    fn unfinished_files_are_parsed_up_to_their_end() {
        assert_eq!(parse("a { b; c")[0].block.as_ref().unwrap().len(), 1);
        assert!(parse("} ; \" ' { #").len() <= 1);
        parse(&"a{".repeat(10_000));
    }
}
