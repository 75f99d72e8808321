//! Words of the selector language, each with where it begins.

/// Longest label an expression may name, in bytes: Calico's limit.
const MAX_LABEL: usize = 512;

/// A word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    Label(String),
    Text(String),
    Has(String),
    All,
    Global,
    Equals,
    NotEquals,
    In,
    NotIn,
    Contains,
    StartsWith,
    EndsWith,
    Not,
    And,
    Or,
    OpenParen,
    CloseParen,
    OpenBrace,
    CloseBrace,
    Comma,
    End,
}

impl Token {
    /// As an error calls it.
    pub(super) fn describe(&self) -> String {
        let fixed = match self {
            Self::Label(name) => return format!("the label {name}"),
            Self::Text(text) => return format!("the text \"{text}\""),
            Self::Has(name) => return format!("has({name})"),
            Self::All => "all()",
            Self::Global => "global()",
            Self::Equals => "\"==\"",
            Self::NotEquals => "\"!=\"",
            Self::In => "\"in\"",
            Self::NotIn => "\"not in\"",
            Self::Contains => "\"contains\"",
            Self::StartsWith => "\"starts with\"",
            Self::EndsWith => "\"ends with\"",
            Self::Not => "\"!\"",
            Self::And => "\"&&\"",
            Self::Or => "\"||\"",
            Self::OpenParen => "\"(\"",
            Self::CloseParen => "\")\"",
            Self::OpenBrace => "\"{\"",
            Self::CloseBrace => "\"}\"",
            Self::Comma => "\",\"",
            Self::End => "the end",
        };
        fixed.to_owned()
    }
}

/// Reads words off a text, from left to right.
pub(super) struct Lexer<'a> {
    text: &'a str,
    /// Bytes read.
    at: usize,
}

/// Where in the text, in bytes, and what is wrong there.
pub(super) type Wrong = (usize, String);

impl<'a> Lexer<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next word and where it begins. What it can be depends on whether the last one was a label: the operators
    /// that are words (`in`, `contains`) are labels in every other place.
    pub(super) fn next(&mut self, after_label: bool) -> Result<(usize, Token), Wrong> {
        self.skip_blanks();
        let at = self.at;
        let Some(first) = self.rest().chars().next() else { return Ok((at, Token::End)) };
        const FIXED: [(&str, Token); 10] = [
            ("==", Token::Equals),
            ("!=", Token::NotEquals),
            ("&&", Token::And),
            ("||", Token::Or),
            ("!", Token::Not),
            ("(", Token::OpenParen),
            (")", Token::CloseParen),
            ("{", Token::OpenBrace),
            ("}", Token::CloseBrace),
            (",", Token::Comma),
        ];
        if let Some((_, token)) = FIXED.iter().find(|(word, _)| self.skip(word)) {
            return Ok((at, token.clone()));
        }
        let token = match first {
            '"' | '\'' => self.text_in(first)?,
            '=' | '&' | '|' => return Err((at, format!("\"{first}{first}\" would be right"))),
            '\n' | '\r' => {
                return Err((
                    at,
                    "a line break; a selector is one line (in YAML, \">-\" folds lines)".into(),
                ));
            }
            other if !is_label_char(other) => return Err((at, format!("{other:?} means nothing here"))),
            _ if after_label => self.operator(at)?,
            _ => self.term()?,
        };
        Ok((at, token))
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
    }

    fn skip(&mut self, word: &str) -> bool {
        let found = self.rest().starts_with(word);
        if found {
            self.at += word.len();
        }
        found
    }

    /// A text between two quotes of one kind. There is no way to write that quote inside.
    fn text_in(&mut self, quote: char) -> Result<Token, Wrong> {
        let inside = &self.rest()[1..];
        let Some(length) = inside.find(quote) else {
            return Err((self.at, format!("the text that begins here has no closing {quote}")));
        };
        self.at += length + 2;
        Ok(Token::Text(inside[..length].to_owned()))
    }

    /// `contains`, `in` and so on: what can follow a label beside `==` and `!=`. Two words may be written as one.
    fn operator(&mut self, at: usize) -> Result<Token, Wrong> {
        const OPERATORS: [(&[&str], Token); 5] = [
            (&["contains"], Token::Contains),
            (&["starts", "with"], Token::StartsWith),
            (&["ends", "with"], Token::EndsWith),
            (&["not", "in"], Token::NotIn),
            (&["in"], Token::In),
        ];
        for (words, token) in &OPERATORS {
            let found = words.iter().all(|word| {
                self.skip_blanks();
                self.skip(word)
            });
            if found && !self.rest().starts_with(is_label_char) {
                return Ok(token.clone());
            }
            self.at = at;
        }
        let operators = "==, !=, in, not in, contains, starts with or ends with";
        Err((at, format!("an operator is missing after the label: {operators}")))
    }

    /// `has(label)`, `all()`, `global()` or a label.
    fn term(&mut self) -> Result<Token, Wrong> {
        if self.skip("has(") {
            self.skip_blanks();
            let name = self.label()?;
            self.close("has")?;
            return Ok(Token::Has(name));
        }
        for (call, name, token) in [("all(", "all", Token::All), ("global(", "global", Token::Global)] {
            if self.skip(call) {
                self.close(name)?;
                return Ok(token);
            }
        }
        self.label().map(Token::Label)
    }

    fn close(&mut self, function: &str) -> Result<(), Wrong> {
        self.skip_blanks();
        if self.skip(")") {
            return Ok(());
        }
        let takes = if function == "has" { "one label and nothing else" } else { "nothing" };
        Err((self.at, format!("{function}() needs its \")\" here: it takes {takes}")))
    }

    fn label(&mut self) -> Result<String, Wrong> {
        let rest = self.rest();
        let length = rest.find(|c| !is_label_char(c)).unwrap_or(rest.len());
        match length {
            0 => Err((self.at, "a label's name is missing".into())),
            1..=MAX_LABEL => {
                self.at += length;
                Ok(rest[..length].to_owned())
            }
            _ => Err((
                self.at,
                format!("a label's name is at most {MAX_LABEL} characters; this one is {length}"),
            )),
        }
    }
}

const fn is_label_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-')
}
