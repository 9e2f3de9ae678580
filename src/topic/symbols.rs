//! Level texts as small numbers, so that an edge of the trie is two numbers and a text that a thousand
//! filters share is stored once.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// A level text that at least one edge of the trie uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Symbol(u32);

/// The level texts in use.
#[derive(Debug, Default)]
pub(super) struct Symbols {
    by_text: HashMap<Box<str>, Used, RandomState>,
    vacant: Vec<Symbol>,
}

#[derive(Debug)]
struct Used {
    symbol: Symbol,
    edges: u32,
}

impl Symbols {
    /// The symbol of `text`, if any edge uses it.
    pub fn find(&self, text: &str) -> Option<Symbol> {
        self.by_text.get(text).map(|used| used.symbol)
    }

    /// The symbol of `text`, for one more edge.
    pub fn acquire(&mut self, text: &str) -> Symbol {
        if let Some(used) = self.by_text.get_mut(text) {
            used.edges += 1;
            return used.symbol;
        }
        // Numbers in use and vacant ones are together 0 to n - 1; there are no more texts than nodes.
        let symbol = self.vacant.pop().unwrap_or(Symbol(self.by_text.len() as u32));
        self.by_text.insert(text.into(), Used { symbol, edges: 1 });
        symbol
    }

    /// Takes one edge away from `text`; the last one frees it.
    pub fn release(&mut self, text: &str) {
        let Some(used) = self.by_text.get_mut(text) else { return };
        used.edges -= 1;
        if used.edges == 0 {
            self.vacant.push(used.symbol);
            self.by_text.remove(text);
        }
    }

    /// How many edges there are by this count.
    #[cfg(test)]
    pub fn edges(&self) -> usize {
        self.by_text.values().map(|used| used.edges as usize).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_in_use_have_different_numbers() {
        let mut symbols = Symbols::default();
        let a = symbols.acquire("a");
        let b = symbols.acquire("b");
        assert_ne!(a, b);
        assert_eq!(symbols.acquire("a"), a);
        symbols.release("a");
        assert_eq!(symbols.find("a"), Some(a), "one edge is left");
        symbols.release("a");
        assert_eq!(symbols.find("a"), None);
        let c = symbols.acquire("c");
        let d = symbols.acquire("d");
        assert!(b != c && c != d && b != d);
        symbols.release("never acquired");
        assert_eq!(symbols.by_text.len(), 3);
    }
}
