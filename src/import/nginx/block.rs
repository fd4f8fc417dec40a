//! Directives and blocks of the file.

use super::super::imported::{Remark, is_file};

/// The deepest nesting of blocks that is read: real files have four levels.
const DEPTH_MAX: usize = 16;

/// The reason for a remark: [`Directive::file`] is `None`.
pub(super) const NOT_A_FILE: &str = "not the path of a file";

/// `words;` or `words { block }`.
#[derive(Debug, Default)]
pub(super) struct Directive {
    /// The number of its first line, from 1: that of the name, or of `{` if the block has no name.
    pub(super) line: usize,
    /// The name and the arguments. Empty only for a block without a name.
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

    /// The first argument, if it is the path of a file. Certificates and keys can also come from variables and
    /// from other sources.
    pub(super) fn file(&self) -> Option<&str> {
        let is_other =
            |path: &str| path.contains('$') || ["data:", "engine:", "store:"].iter().any(|kind| path.starts_with(kind));
        self.word(1).filter(|path| is_file(path) && !is_other(path))
    }

    /// The remark that this directive is not carried over.
    pub(super) fn left_out(&self, why: &str) -> Remark {
        let block = if self.block.is_some() { " { … }" } else { "" };
        Remark::left_out(self.line, &format!("{}{block}", self.words.join(" ")), why)
    }
}

/// The last directive with this name.
pub(super) fn last<'d>(all: &[&'d Directive], name: &str) -> Option<&'d Directive> {
    let mut matching = all.iter().filter(|directive| directive.name() == name);
    matching.next_back().copied()
}

/// A block whose `}` is not reached yet.
struct OpenBlock {
    /// The directive that the block belongs to.
    directive: Directive,
    /// The directives before it, in the block around it or in the file.
    siblings_before: Vec<Directive>,
}

/// Parses a file. A missing or surplus `}` is not an error. A directive without its `;` at the end of a block or of the
/// file is dropped.
pub(super) fn parse(text: &str) -> Vec<Directive> {
    let mut open: Vec<OpenBlock> = Vec::new();
    // The directives of the innermost open block so far, or of the file.
    let mut all: Vec<Directive> = Vec::new();
    let mut current = Directive::default();
    let mut skipped = 0_usize; // open blocks that are too deep
    for (line, token) in tokens(text) {
        match token {
            NginxToken::Open if skipped > 0 || open.len() == DEPTH_MAX => {
                skipped += 1;
                current = Directive::default();
            }
            NginxToken::Close if skipped > 0 => skipped -= 1,
            _ if skipped > 0 => {}
            NginxToken::Word(word) => {
                if current.words.is_empty() {
                    current.line = line;
                }
                current.words.push(word);
            }
            NginxToken::End if current.words.is_empty() => {}
            NginxToken::End => all.push(std::mem::take(&mut current)),
            NginxToken::Open => {
                if current.words.is_empty() {
                    current.line = line;
                }
                open.push(OpenBlock {
                    directive: std::mem::take(&mut current),
                    siblings_before: std::mem::take(&mut all),
                });
            }
            NginxToken::Close => {
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
fn close(open: &mut Vec<OpenBlock>, all: &mut Vec<Directive>) {
    if let Some(mut block) = open.pop() {
        block.directive.block = Some(std::mem::replace(all, block.siblings_before));
        all.push(block.directive);
    }
}

enum NginxToken {
    Word(String),
    /// `;`
    End,
    Open,
    Close,
}

/// The tokens, each with the line of its first character.
fn tokens(text: &str) -> Vec<(usize, NginxToken)> {
    let mut tokens = Vec::new();
    let mut chars = with_lines(text).peekable();
    let mut word: Option<(usize, String)> = None;
    while let Some((line, c)) = chars.next() {
        if word.is_none() && c == '#' {
            while chars.next_if(|(_, next)| *next != '\n').is_some() {}
            continue;
        }
        let token = match c {
            // `{` after `$` begins the name of a variable, as in `${name}`, and not a block.
            '{' if word.as_ref().is_some_and(|(_, word)| word.ends_with('$')) => None,
            ';' => Some(NginxToken::End),
            '{' => Some(NginxToken::Open),
            '}' => Some(NginxToken::Close),
            _ => None,
        };
        if token.is_some() || c.is_whitespace() {
            tokens.extend(word.take().map(|(line, word)| (line, NginxToken::Word(word))));
            tokens.extend(token.map(|token| (line, token)));
            continue;
        }
        let is_first = word.is_none();
        let (_, word) = word.get_or_insert_with(|| (line, String::new()));
        match c {
            '"' | '\'' if is_first => {
                while let Some((_, inside)) = chars.next().filter(|(_, inside)| *inside != c) {
                    match inside {
                        '\\' => push_escaped(word, chars.next()),
                        inside => word.push(inside),
                    }
                }
            }
            '\\' => push_escaped(word, chars.next()),
            // The name of the variable.
            '{' => {
                word.push('{');
                let is_name = |(_, next): &(usize, char)| !next.is_whitespace() && !";{}".contains(*next);
                word.extend(std::iter::from_fn(|| chars.next_if(is_name)).map(|(_, inside)| inside));
                word.extend(chars.next_if(|(_, next)| *next == '}').map(|(_, end)| end));
            }
            c => word.push(c),
        }
    }
    tokens.extend(word.map(|(line, word)| (line, NginxToken::Word(word))));
    tokens
}

/// The characters, each with the number of its line.
fn with_lines(text: &str) -> impl Iterator<Item = (usize, char)> {
    text.chars().scan(1, |line, c| {
        let at = *line;
        *line += usize::from(c == '\n');
        Some((at, c))
    })
}

/// Adds the meaning of `\` and the character after it. The rules are the same within quotes and outside of them (nginx,
/// `ngx_conf_read_token`).
fn push_escaped(word: &mut String, next: Option<(usize, char)>) {
    match next {
        Some((_, c @ ('"' | '\'' | '\\'))) => word.push(c),
        Some((_, 't')) => word.push('\t'),
        Some((_, 'r')) => word.push('\r'),
        Some((_, 'n')) => word.push('\n'),
        other => word.extend(['\\'].into_iter().chain(other.map(|(_, c)| c))),
    }
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
    fn lines_are_counted_in_words_too() {
        let texts = [
            ("a 'b\nc';\nd;", "b\nc", 3),
            ("a 'b\\\nc';\nd;", "b\\\nc", 3),
            ("a b\\\nc;\nd;", "b\\\nc", 3),
            ("a ${b\n;d;", "${b", 2),
        ];
        for (text, word, line) in texts {
            let all = parse(text);
            assert_eq!((all[0].line, all[0].word(1)), (1, Some(word)), "{text}");
            assert_eq!((all[1].line, all[1].name()), (line, "d"), "{text}");
        }
        assert_eq!(parse("\n{ a; }")[0].line, 2);
        assert_eq!(parse("'a\nb'\n;")[0].line, 1);
    }

    #[test]
    fn only_some_characters_are_escaped() {
        let all = parse(r#"a "~^a\.b$" "\"\'\\\t" ~^a\.b$ \\ \';"#);
        assert_eq!(all[0].arguments(), [r"~^a\.b$", "\"'\\\t", r"~^a\.b$", "\\", "'"]);
    }

    #[test]
    fn what_follows_a_block_that_is_too_deep_belongs_to_the_outer_block() {
        let (depth, deeper) = (DEPTH_MAX, DEPTH_MAX + 3);
        let text = format!(
            "{}b;{}c;{}d;",
            "a{".repeat(deeper),
            "}".repeat(deeper - depth),
            "}".repeat(depth)
        );
        let mut all = parse(&text);
        assert_eq!(all[1].name(), "d");
        for _ in 0..depth {
            all = all.swap_remove(0).block.unwrap();
        }
        let names: Vec<&str> = all.iter().map(Directive::name).collect();
        assert_eq!(names, ["c"]);
    }

    #[test]
    fn unfinished_files_are_parsed_up_to_the_last_complete_directive() {
        assert_eq!(parse("a { b; c")[0].block.as_ref().unwrap().len(), 1);
        assert!(parse("} ; \" ' { #").len() <= 1);
        parse(&"a{".repeat(10_000));
    }
}
