//! From text to expression.

use std::collections::BTreeSet;
use std::str::FromStr;

use super::Expr;
use super::lexer::{Lexer, Token, Wrong};

/// Longest selector, in bytes.
pub const MAX_LENGTH: usize = 64 * 1024;

/// How deep parentheses may nest.
pub const MAX_DEPTH: usize = 64;

/// Characters of the text that an error shows on each side of the place.
const SHOWN: usize = 40;

/// Why a selector cannot be read. Its text has the selector below the problem, and a caret below the character.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}\n  {excerpt}\n  {caret:>width$}", caret = "^", width = column + 1)]
pub struct ParseError {
    /// Where, in characters from the beginning.
    pub position: usize,
    /// What is wrong there, and what would be right.
    pub problem: String,
    /// The selector, or what of it is near the place.
    excerpt: String,
    /// Where the place is in the excerpt, in characters.
    column: usize,
}

impl ParseError {
    /// `at` is in bytes.
    fn new(text: &str, (at, problem): Wrong) -> Self {
        let position = text[..at].chars().count();
        let first = position.saturating_sub(SHOWN);
        let near: String = text.chars().skip(first).take(position - first + SHOWN).collect();
        let (before, after) = (first > 0, near.len() < text.len() && text.chars().count() > position + SHOWN);
        // Each control character becomes one blank, so that the caret stays below its place.
        let near = near.replace(char::is_control, " ");
        let excerpt = format!("{}{near}{}", if before { "..." } else { "" }, if after { "..." } else { "" });
        Self { position, problem, excerpt, column: position - first + if before { 3 } else { 0 } }
    }
}

impl FromStr for Expr {
    type Err = ParseError;

    /// Reads the selector language; nothing but blanks means `all()`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        if text.len() > MAX_LENGTH {
            let problem = format!("a selector has at most {MAX_LENGTH} bytes; this one has {}", text.len());
            return Err(ParseError::new(text, (0, problem)));
        }
        Parser::whole(text).map_err(|wrong| ParseError::new(text, wrong))
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The next word, and where it begins.
    at: usize,
    next: Token,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn whole(text: &'a str) -> Result<Expr, Wrong> {
        let mut lexer = Lexer::new(text);
        let (at, next) = lexer.next(false)?;
        let mut parser = Self { lexer, at, next, depth: 0 };
        if parser.next == Token::End {
            return Ok(Expr::All);
        }
        let expr = parser.either()?;
        if parser.next == Token::End { Ok(expr) } else { Err(parser.unexpected("&&, || or the end")) }
    }

    /// The next word, and steps over it.
    fn take(&mut self) -> Result<Token, Wrong> {
        let (at, next) = self.lexer.next(matches!(self.next, Token::Label(_)))?;
        self.at = at;
        Ok(std::mem::replace(&mut self.next, next))
    }

    fn take_if(&mut self, token: &Token) -> Result<bool, Wrong> {
        let found = self.next == *token;
        if found {
            self.take()?;
        }
        Ok(found)
    }

    fn unexpected(&self, wanted: &str) -> Wrong {
        (self.at, format!("{} stands where {wanted} would be right", self.next.describe()))
    }

    /// Terms between `||`.
    fn either(&mut self) -> Result<Expr, Wrong> {
        let mut terms = vec![self.both()?];
        while self.take_if(&Token::Or)? {
            terms.push(self.both()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Expr::Or(terms) })
    }

    /// Terms between `&&`.
    fn both(&mut self) -> Result<Expr, Wrong> {
        let mut terms = vec![self.term()?];
        while self.take_if(&Token::And)? {
            terms.push(self.term()?);
        }
        Ok(if terms.len() == 1 { terms.remove(0) } else { Expr::And(terms) })
    }

    /// One condition or a whole expression in parentheses, with any number of `!` before it.
    fn term(&mut self) -> Result<Expr, Wrong> {
        let mut negated = false;
        while self.take_if(&Token::Not)? {
            negated = !negated;
        }
        const TERM: &str = "a label, has(), all(), global(), \"!\" or \"(\"";
        if !matches!(
            self.next,
            Token::Has(_) | Token::All | Token::Global | Token::Label(_) | Token::OpenParen
        ) {
            return Err(self.unexpected(TERM));
        }
        let opened = self.at;
        let term = match self.take()? {
            Token::Has(key) => Expr::Has(key),
            Token::All => Expr::All,
            Token::Global => Expr::Global,
            Token::Label(key) => self.comparison(key)?,
            _ => self.inside(opened)?,
        };
        Ok(if negated { Expr::Not(Box::new(term)) } else { term })
    }

    /// What stands between parentheses, the first of which was at `opened`.
    fn inside(&mut self, opened: usize) -> Result<Expr, Wrong> {
        if self.depth == MAX_DEPTH {
            return Err((opened, format!("parentheses nest at most {MAX_DEPTH} deep")));
        }
        self.depth += 1;
        let expr = self.either()?;
        self.depth -= 1;
        match self.take_if(&Token::CloseParen)? {
            true => Ok(expr),
            false => Err(self.unexpected("&&, || or \")\"")),
        }
    }

    /// The operator after a label, and what it compares with.
    fn comparison(&mut self, key: String) -> Result<Expr, Wrong> {
        let operators = "==, !=, in, not in, contains, starts with or ends with";
        let make = match self.next {
            Token::In | Token::NotIn => {
                let is_in = self.take()? == Token::In;
                let values = self.values()?;
                return Ok(if is_in { Expr::In(key, values) } else { Expr::NotIn(key, values) });
            }
            Token::Equals => Expr::Equals,
            Token::NotEquals => Expr::NotEquals,
            Token::Contains => Expr::Contains,
            Token::StartsWith => Expr::StartsWith,
            Token::EndsWith => Expr::EndsWith,
            _ => return Err(self.unexpected(operators)),
        };
        self.take()?;
        if !matches!(self.next, Token::Text(_)) {
            return Err(self.unexpected("a text in quotes"));
        }
        match self.take()? {
            Token::Text(value) => Ok(make(key, value)),
            _ => unreachable!("looked at just above"),
        }
    }

    /// `{"a", "b"}`; a comma may follow the last.
    fn values(&mut self) -> Result<BTreeSet<String>, Wrong> {
        if !self.take_if(&Token::OpenBrace)? {
            return Err(self.unexpected("a set like {\"a\", \"b\"}"));
        }
        let mut values = BTreeSet::new();
        while matches!(self.next, Token::Text(_)) {
            if let Token::Text(value) = self.take()? {
                values.insert(value);
            }
            if !self.take_if(&Token::Comma)? {
                break;
            }
        }
        match self.take_if(&Token::CloseBrace)? {
            true => Ok(values),
            false => Err(self.unexpected("a text in quotes, \",\" or \"}\"")),
        }
    }
}
