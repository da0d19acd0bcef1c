//! Room for what processes write, used again for the next: the kernel clears fresh memory and maps it page by page, which
//! under emulation costs about as much as copying what goes in.

use std::sync::{Mutex, PoisonError};

/// How many are kept for later.
const MOST_KEPT: usize = 2;

/// Buffers of one length.
#[derive(Debug)]
pub(crate) struct Buffers {
    length: usize,
    kept: Mutex<Vec<Vec<u8>>>,
}

impl Buffers {
    /// None yet; each will be `length` bytes long.
    pub(crate) const fn of(length: usize) -> Self {
        Self { length, kept: Mutex::new(Vec::new()) }
    }

    /// One with anything in it.
    pub(crate) fn take(&self) -> Vec<u8> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| vec![0; self.length])
    }

    /// Keeps `buffer` for the next one who takes one, unless it is of another length or there are enough.
    pub(crate) fn give_back(&self, buffer: Vec<u8>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.len() == self.length && kept.len() < MOST_KEPT {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_used_again_and_few_are_kept() {
        let buffers = Buffers::of(10);
        let mut used = buffers.take();
        used[3] = 7;
        buffers.give_back(used);
        assert_eq!(buffers.take()[3], 7);
        for length in [9, 10, 10, 10] {
            buffers.give_back(vec![1; length]);
        }
        let taken: Vec<_> = (0..3).map(|_| buffers.take()).collect();
        assert_eq!(taken, [vec![1; 10], vec![1; 10], vec![0; 10]]);
    }
}
