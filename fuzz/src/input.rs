//! The engine's bytes as decisions. When they run out, every decision is zero.

pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    pub fn choose(&mut self, below: usize) -> usize {
        usize::from(self.byte().unwrap_or_default()) % below.max(1)
    }

    /// From 0 to `most`, in steps of one for what is near and of more for what is long.
    pub fn up_to(&mut self, most: usize) -> usize {
        let wanted = usize::from(self.byte().unwrap_or_default());
        if wanted < 128 { wanted.min(most) } else { most.saturating_sub(wanted - 128) }
    }

    /// A byte of length, then so many bytes.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = self.choose(64).min(self.rest.len());
        let (piece, rest) = self.rest.split_at(length);
        self.rest = rest;
        piece
    }
}
