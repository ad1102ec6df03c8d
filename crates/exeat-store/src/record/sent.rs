//! What goes to a client, as the record takes it, and the frames that blobs are kept in: each a zstd frame of its own, so that one
//! that is damaged takes nothing else with it. Short ones are stored in their frame as they are.

use std::sync::{Mutex, PoisonError};

use zstd::bulk::{Compressor, Decompressor};

use super::tail::{BLOB_BYTES_MAX, wide};
use crate::StoreError;

/// Up to here compressing costs more than it saves.
const STORED_BYTES_MAX: usize = 512;

/// Fast, and a third of the size for rows of text.
const LEVEL: i32 = 1;

/// Bytes that are about to go to the client.
#[derive(Debug, Clone, Copy)]
pub struct Sent<'a> {
    /// What is kept of them; sealed.
    pub messages: &'a [u8],
    /// How many there are.
    pub bytes: u64,
    /// How many rows are in them.
    pub rows: u64,
}

/// Compressors that are not at work: each has a few hundred kilobytes, and a thousand sessions need a few of them.
#[derive(Default)]
pub(crate) struct Frames {
    idle: Mutex<Vec<Compressor<'static>>>,
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Frames")
    }
}

impl Frames {
    /// Appends a frame that holds these bytes.
    pub(crate) fn put(&self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), StoreError> {
        if plain.len() <= STORED_BYTES_MAX {
            store(plain, out);
            return Ok(());
        }
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut compressor = match idle {
            Some(compressor) => compressor,
            None => Compressor::new(LEVEL).map_err(StoreError::Frame)?,
        };
        let start = out.len();
        out.resize(start + zstd::zstd_safe::compress_bound(plain.len()), 0);
        let room = out.get_mut(start..).unwrap_or_default();
        let written = compressor.compress_to_buffer(plain, room).map_err(StoreError::Frame)?;
        out.truncate(start + written);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(compressor);
        Ok(())
    }
}

/// A frame of one raw block, as the format describes it: magic, descriptor (single segment, size in one byte or two), size, block
/// header (last, raw, size), bytes.
fn store(plain: &[u8], out: &mut Vec<u8>) {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    const LAST_RAW_BLOCK: u32 = 1;
    out.extend_from_slice(&MAGIC);
    match u8::try_from(plain.len()) {
        Ok(size) => out.extend_from_slice(&[0x20, size]),
        Err(_) => {
            out.push(0x60);
            let size = u16::try_from(plain.len() - 256).unwrap_or(u16::MAX);
            out.extend_from_slice(&size.to_le_bytes());
        }
    }
    let header = LAST_RAW_BLOCK | u32::try_from(plain.len()).unwrap_or(u32::MAX) << 3;
    out.extend(header.to_le_bytes().into_iter().take(3));
    out.extend_from_slice(plain);
}

/// What a frame holds. `None` if it is none, or holds more than any blob.
pub(crate) fn open_frame(frame: &[u8]) -> Option<Vec<u8>> {
    let bytes = zstd::zstd_safe::get_frame_content_size(frame).ok()??;
    if bytes > wide(BLOB_BYTES_MAX) {
        return None;
    }
    Decompressor::new().ok()?.decompress(frame, usize::try_from(bytes).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_size_hold_what_was_put_in() {
        let frames = Frames::default();
        let plain: Vec<u8> = (0..100_000_u32).map(|number| (number % 251).to_le_bytes()[0]).collect();
        for bytes in [0, 1, 2, 127, 128, 255, 256, 257, 511, 512, 513, 4096, 100_000] {
            let mut frame = Vec::new();
            frames.put(&plain[..bytes], &mut frame).unwrap();
            assert_eq!(open_frame(&frame).unwrap(), plain[..bytes], "{bytes}");
            assert!(frame.len() <= bytes + 16, "{bytes}: {}", frame.len());
            assert_eq!(open_frame(&frame[..frame.len() - 1]), None, "{bytes}: a torn frame");
        }
    }
}
