//! Cuts a filter's text into words.

use super::{FilterError, Problem};

/// A word and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word<'t> {
    pub(super) offset: usize,
    pub(super) text: &'t str,
}

impl<'t> Word<'t> {
    pub(super) fn error(self, problem: Problem) -> FilterError<'t> {
        FilterError { offset: self.offset, word: self.text, problem }
    }

    pub(super) fn expected(self, what: &'static str) -> FilterError<'t> {
        self.error(Problem::Expected(what))
    }

    /// It is one of these, in either case.
    pub(super) fn is(self, words: &[&str]) -> bool {
        words.iter().any(|word| word.eq_ignore_ascii_case(self.text))
    }

    /// The end of the text.
    pub(super) const fn is_end(self) -> bool {
        self.text.is_empty()
    }
}

/// What stands by itself, with or without space round it; the longer ones first.
const SYMBOLS: [&str; 14] = ["&&", "||", "==", "!=", ">=", "<=", "(", ")", "&", "|", "!", "=", ">", "<"];

/// The text that has not been read yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words<'t> {
    text: &'t str,
    offset: usize,
}

impl<'t> Words<'t> {
    pub(super) const fn new(text: &'t str) -> Self {
        Self { text, offset: 0 }
    }

    /// The next word or symbol, without taking it. At the end an empty one.
    pub(super) fn peek(mut self) -> Word<'t> {
        self.take()
    }

    /// Takes the next word or symbol.
    pub(super) fn take(&mut self) -> Word<'t> {
        self.skip_space();
        let rest = self.rest();
        if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            return self.cut(symbol.len());
        }
        let end =
            rest.find(|c: char| c.is_whitespace() || SYMBOLS.iter().any(|symbol| symbol.starts_with(c)));
        self.cut(end.unwrap_or(rest.len()))
    }

    /// Takes a value: up to the next space or parenthesis, or what stands in double quotes.
    pub(super) fn take_value(&mut self) -> Result<Word<'t>, FilterError<'t>> {
        self.skip_space();
        if let Some(quoted) = self.rest().strip_prefix('"') {
            let Some(len) = quoted.find('"') else {
                return Err(self.cut(self.rest().len()).expected("a second '\"'"));
            };
            self.cut(1);
            let word = self.cut(len);
            self.cut(1);
            return Ok(word);
        }
        let rest = self.rest();
        let end = rest.find(|c: char| c.is_whitespace() || c == '(' || c == ')');
        Ok(self.cut(end.unwrap_or(rest.len())))
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.offset..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        let space = rest.len().saturating_sub(rest.trim_start().len());
        self.offset = self.offset.saturating_add(space);
    }

    fn cut(&mut self, len: usize) -> Word<'t> {
        let text = self.rest().get(..len).unwrap_or_default();
        let word = Word { offset: self.offset, text };
        self.offset = self.offset.saturating_add(text.len());
        word
    }
}
