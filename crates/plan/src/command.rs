//! Splits a command line into words, the way a shell would, and nothing more.
//!
//! No shell runs a command of the site file: it would stand between us and the program when signals are
//! sent, and its variables and expansions would be one more language in the file. What a shell would have
//! interpreted is therefore refused with a way out, never passed on in silence.

use thiserror::Error;

/// Why a command line cannot be split.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CommandError {
    #[error("the command is empty")]
    Empty,
    #[error("the command has a quote {0} that does not end")]
    OpenQuote(char),
    #[error("the command ends with a backslash that quotes nothing")]
    OpenBackslash,
    #[error("the command has {0:?}, which only a shell understands, and no shell runs it")]
    Shell(char),
    #[error("the command has a zero byte, which no program can be given")]
    Zero,
}

impl CommandError {
    /// What to do about it.
    pub fn hint(self) -> &'static str {
        match self {
            CommandError::Empty => "write the program and its arguments: `command = \"python3 app.py\"`",
            CommandError::OpenQuote(_) => {
                "end the quote, or write a backslash before it to mean the character itself"
            }
            CommandError::OpenBackslash => "write two backslashes to mean one",
            CommandError::Shell(_) => {
                "put it in quotes if it is meant as it stands; ask for a shell if one is meant: `sh -c 'exec … \"$PORT\"'`"
            }
            CommandError::Zero => "remove it",
        }
    }
}

/// The words of a command line. Single quotes keep everything; double quotes keep everything but `\"` and
/// `\\`; a backslash outside quotes keeps the next character. There is at least one word, and the first is
/// not empty.
pub fn words(command: &str) -> Result<Vec<String>, CommandError> {
    if command.contains('\0') {
        return Err(CommandError::Zero);
    }
    let mut words = Vec::new();
    let mut characters = command.chars().peekable();
    while let Some(first) = characters.peek() {
        if first.is_whitespace() {
            characters.next();
        } else {
            words.push(word(&mut characters)?);
        }
    }
    if words.first().is_none_or(String::is_empty) {
        return Err(CommandError::Empty);
    }
    Ok(words)
}

type Characters<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn word(characters: &mut Characters<'_>) -> Result<String, CommandError> {
    let mut word = String::new();
    while let Some(character) = characters.next_if(|character| !character.is_whitespace()) {
        match character {
            '\'' => single_quoted(characters, &mut word)?,
            '"' => double_quoted(characters, &mut word)?,
            '\\' => word.push(characters.next().ok_or(CommandError::OpenBackslash)?),
            '|' | '&' | ';' | '<' | '>' | '`' | '$' => return Err(CommandError::Shell(character)),
            _ => word.push(character),
        }
    }
    Ok(word)
}

fn single_quoted(characters: &mut Characters<'_>, word: &mut String) -> Result<(), CommandError> {
    for character in characters {
        match character {
            '\'' => return Ok(()),
            _ => word.push(character),
        }
    }
    Err(CommandError::OpenQuote('\''))
}

/// A shell would put the variable `$PORT` in here too, so it is refused rather than passed on unread.
fn double_quoted(characters: &mut Characters<'_>, word: &mut String) -> Result<(), CommandError> {
    while let Some(character) = characters.next() {
        match character {
            '"' => return Ok(()),
            '$' | '`' => return Err(CommandError::Shell(character)),
            '\\' => match characters.next_if(|next| matches!(next, '"' | '\\' | '$' | '`')) {
                Some(next) => word.push(next),
                None => word.push('\\'),
            },
            _ => word.push(character),
        }
    }
    Err(CommandError::OpenQuote('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(command: &str, expect: &[&str]) {
        assert_eq!(words(command).expect("it splits"), expect);
    }

    #[test]
    fn words_are_split_at_white_space() {
        check("python3 app.py", &["python3", "app.py"]);
        check("  a\t b\n", &["a", "b"]);
    }

    #[test]
    fn quotes_keep_words_together() {
        check("sh -c 'exec \"$PORT\"'", &["sh", "-c", "exec \"$PORT\""]);
        check(r#"a "b \"c\" \n" d"#, &["a", "b \"c\" \\n", "d"]);
        check(r"a\ b c\'", &["a b", "c'"]);
        check("a '' \"\"", &["a", "", ""]);
    }

    #[test]
    fn what_cannot_be_split_says_why() {
        assert_eq!(words(" "), Err(CommandError::Empty));
        assert_eq!(words("''"), Err(CommandError::Empty));
        assert_eq!(words("a 'b"), Err(CommandError::OpenQuote('\'')));
        assert_eq!(words("a \"b"), Err(CommandError::OpenQuote('"')));
        assert_eq!(words("a \\"), Err(CommandError::OpenBackslash));
        assert_eq!(words("gunicorn -b :$PORT"), Err(CommandError::Shell('$')));
        assert_eq!(words("a \"$PORT\""), Err(CommandError::Shell('$')));
        assert_eq!(words("a && b"), Err(CommandError::Shell('&')));
        assert_eq!(words("a\0"), Err(CommandError::Zero));
    }
}
