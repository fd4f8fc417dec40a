//! Directives and blocks of the file.

use std::iter::Peekable;

use super::super::ImportError;
use super::super::imported::{Remark, is_file};

/// The deepest nesting of blocks that is read: real files have four levels.
const DEPTH_MAX: usize = 16;

/// The reason in the remark about a directive whose [`Directive::file`] is `None`.
pub(super) const NOT_A_FILE: &str = "not the path of a file";

const NO_END: &str = "the directive that begins here has no `;`";

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

fn error(line: usize, problem: &'static str) -> ImportError {
    ImportError::Syntax { line, problem }
}

/// Parses a file.
///
/// # Errors
/// A block, a directive or a quote does not end, a `}` ends no block, or blocks are nested too deep.
pub(super) fn parse(text: &str) -> Result<Vec<Directive>, ImportError> {
    let mut open: Vec<OpenBlock> = Vec::new();
    // The directives read so far in the innermost open block, or in the file if no block is open.
    let mut all: Vec<Directive> = Vec::new();
    let mut current = Directive::default();
    for (line, token) in tokens(text)? {
        match token {
            NginxToken::Word(word) => {
                if current.words.is_empty() {
                    current.line = line;
                }
                current.words.push(word);
            }
            NginxToken::End if current.words.is_empty() => {}
            NginxToken::End => all.push(std::mem::take(&mut current)),
            NginxToken::Open if open.len() == DEPTH_MAX => {
                return Err(error(line, "blocks are nested more than 16 deep"));
            }
            NginxToken::Open => {
                if current.words.is_empty() {
                    current.line = line;
                }
                open.push(OpenBlock {
                    directive: std::mem::take(&mut current),
                    siblings_before: std::mem::take(&mut all),
                });
            }
            NginxToken::Close if !current.words.is_empty() => return Err(error(current.line, NO_END)),
            NginxToken::Close => {
                let Some(mut block) = open.pop() else {
                    return Err(error(line, "this `}` ends no block"));
                };
                block.directive.block = Some(std::mem::replace(&mut all, block.siblings_before));
                all.push(block.directive);
            }
        }
    }
    if !current.words.is_empty() {
        return Err(error(current.line, NO_END));
    }
    match open.pop() {
        Some(block) => Err(error(block.directive.line, "the block that begins here has no `}`")),
        None => Ok(all),
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
///
/// # Errors
/// A quote does not end.
fn tokens(text: &str) -> Result<Vec<(usize, NginxToken)>, ImportError> {
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
            // Within a word, `}` is an ordinary character.
            '}' if word.is_none() => Some(NginxToken::Close),
            _ => None,
        };
        if token.is_some() || c.is_whitespace() {
            tokens.extend(word.take().map(|(line, word)| (line, NginxToken::Word(word))));
            let is_lua = c == '{' && begins_lua(&tokens);
            tokens.extend(token.map(|token| (line, token)));
            if is_lua {
                tokens.extend(skip_lua(&mut chars).map(|line| (line, NginxToken::Close)));
            }
            continue;
        }
        let is_first = word.is_none();
        let (_, word) = word.get_or_insert_with(|| (line, String::new()));
        match c {
            '"' | '\'' if is_first => loop {
                match chars.next() {
                    None => return Err(error(line, "the quote that begins here does not end")),
                    Some((_, inside)) if inside == c => break,
                    Some((_, '\\')) => push_escaped(word, chars.next()),
                    Some((_, inside)) => word.push(inside),
                }
            },
            '\\' => push_escaped(word, chars.next()),
            c => word.push(c),
        }
    }
    tokens.extend(word.map(|(line, word)| (line, NginxToken::Word(word))));
    Ok(tokens)
}

/// Whether the block that follows these tokens is code in Lua (ngx_stream_lua_module), such as
/// `balancer_by_lua_block { … }`.
fn begins_lua(tokens: &[(usize, NginxToken)]) -> bool {
    let words = tokens.iter().rev().map_while(|(_, token)| match token {
        NginxToken::Word(word) => Some(word),
        _ => None,
    });
    words.last().is_some_and(|name| name.ends_with("_by_lua_block"))
}

/// Skips code in Lua up to the `}` that ends its block. Returns the line of that `}`. Braces in strings and comments
/// are not counted.
fn skip_lua(chars: &mut Peekable<impl Iterator<Item = (usize, char)>>) -> Option<usize> {
    let mut depth = 1_usize;
    while let Some((line, c)) = chars.next() {
        match c {
            '"' | '\'' => {
                while let Some((_, inside)) = chars.next().filter(|(_, inside)| *inside != c) {
                    if inside == '\\' {
                        chars.next();
                    }
                }
            }
            '-' if chars.next_if(|(_, next)| *next == '-').is_some() => {
                let is_long = chars.next_if(|(_, next)| *next == '[').is_some() && skip_long_bracket(chars);
                while !is_long && chars.next_if(|(_, next)| *next != '\n').is_some() {}
            }
            '[' => {
                skip_long_bracket(chars);
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(line);
        }
    }
    None
}

/// Skips the rest of a long bracket of Lua, such as `[[ … ]]` or `[=[ … ]=]`, after its first `[` (Lua 5.1 manual,
/// section 2.1). Returns false if that `[` begins none.
fn skip_long_bracket(chars: &mut Peekable<impl Iterator<Item = (usize, char)>>) -> bool {
    let mut level = 0_usize;
    while chars.next_if(|(_, next)| *next == '=').is_some() {
        level += 1;
    }
    if chars.next_if(|(_, next)| *next == '[').is_none() {
        return false;
    }
    // The number of `=` since a `]`, if nothing else is between.
    let mut equals = None;
    for (_, c) in chars {
        equals = match (c, equals) {
            (']', Some(count)) if count == level => break,
            (']', _) => Some(0),
            ('=', Some(count)) => Some(count + 1),
            _ => None,
        };
    }
    true
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
        let all = parse("a 'b c' \"d\\\"\"; # e;\nstream { map $x ${y} { ~^a\\;b c; } }\nf;").unwrap();
        assert_eq!(all[0].words, ["a", "b c", "d\""]);
        let stream = all[1].block.as_ref().unwrap();
        assert_eq!((all[1].line, stream[0].line), (2, 2));
        assert_eq!(stream[0].words, ["map", "$x", "${y}"]);
        assert_eq!(stream[0].block.as_ref().unwrap()[0].words, ["~^a\\;b", "c"]);
        assert_eq!(all[2].words, ["f"]);
    }

    #[test]
    fn line_breaks_within_words_are_counted() {
        let texts = [
            ("a 'b\nc';\nd;", "b\nc", 3),
            ("a 'b\\\nc';\nd;", "b\\\nc", 3),
            ("a b\\\nc;\nd;", "b\\\nc", 3),
            ("a ${b\n;d;", "${b", 2),
        ];
        for (text, word, line) in texts {
            let all = parse(text).unwrap();
            assert_eq!((all[0].line, all[0].word(1)), (1, Some(word)), "{text}");
            assert_eq!((all[1].line, all[1].name()), (line, "d"), "{text}");
        }
        assert_eq!(parse("\n{ a; }").unwrap()[0].line, 2);
        assert_eq!(parse("'a\nb'\n;").unwrap()[0].line, 1);
    }

    #[test]
    fn a_backslash_stands_for_itself_before_most_characters() {
        let all = parse(r#"a "~^a\.b$" "\"\'\\\t" ~^a\.b$ \\ \';"#).unwrap();
        assert_eq!(all[0].arguments(), [r"~^a\.b$", "\"'\\\t", r"~^a\.b$", "\\", "'"]);
    }

    #[test]
    fn a_closing_brace_within_a_word_ends_no_block() {
        let all = parse("a {b c}d;}\ne;").unwrap();
        assert_eq!(all[0].block.as_ref().unwrap()[0].words, ["b", "c}d"]);
        assert_eq!(all[1].words, ["e"]);
    }

    #[test]
    fn code_in_lua_is_skipped() {
        let code = r#"local t = { "}" } -- }
            if #t > 0 then s = 'a\'}' end
        "#;
        let all = parse(&format!("u {{ set_by_lua_block $x {{ {code} }} b; }}\nc;")).unwrap();
        let inside = all[0].block.as_ref().unwrap();
        assert_eq!(inside[0].words, ["set_by_lua_block", "$x"]);
        assert_eq!(inside[0].block.as_ref().map(Vec::len), Some(0));
        assert_eq!((inside[1].name(), all[1].name()), ("b", "c"));
        let unfinished = parse("a;\nx_by_lua_block { {} ").unwrap_err();
        assert!(unfinished.to_string().starts_with("line 2: "), "{unfinished}");
    }

    #[test]
    fn long_brackets_of_lua_are_skipped() {
        for code in [
            "--[[ don't }\n} ]] {}",
            "s = [[ don't } ]=] ]]",
            "s = [=[ don't ]] } ]==] ]]=]",
            "--[==[ \" ]=] } ]]==]",
            "--[ don't }\n",
            "--[=\n",
            "t[t[1]] = { t['['] }",
        ] {
            let all = parse(&format!("x_by_lua_block {{ {code} }} b;")).unwrap();
            assert_eq!((all.len(), all[1].name()), (2, "b"), "{code}");
        }
        assert!(parse("x_by_lua_block { [=[ ]] } b;").is_err());
    }

    #[test]
    fn syntax_errors_have_the_line_where_the_wrong_part_begins() {
        let no_block_end = "the block that begins here has no `}`";
        for (text, line, problem) in [
            ("a;\nb {\nc;\n", 2, no_block_end),
            ("a {\nb {\n}\n", 1, no_block_end),
            ("a {\nb {\n", 2, no_block_end),
            ("a {\nb\nc", 2, NO_END),
            ("a {\nb\n}", 2, NO_END),
            ("\nb ${x", 2, NO_END),
            ("b \\", 1, NO_END),
            ("a;\nb 'c;\n", 2, "the quote that begins here does not end"),
            ("a \"b\\\";", 1, "the quote that begins here does not end"),
            ("a { }\n}", 2, "this `}` ends no block"),
        ] {
            assert_eq!(parse(text).err(), Some(error(line, problem)), "{text}");
        }
    }

    #[test]
    fn the_nesting_of_blocks_is_limited() {
        let nested = |depth: usize| format!("{}{}", "a{".repeat(depth), "}".repeat(depth));
        assert!(parse(&nested(DEPTH_MAX)).is_ok());
        let problem = format!("line 1: blocks are nested more than {DEPTH_MAX} deep");
        assert_eq!(parse(&nested(DEPTH_MAX + 1)).unwrap_err().to_string(), problem);
    }
}
