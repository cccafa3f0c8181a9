//! From a layer's archive, or a directory, to a directory that overlayfs can use as a lower layer.

mod attributes;
mod budget;
mod compare;
mod deferred;
mod directory;
mod entry;
mod format;
mod layer;
mod lost;
mod lower;
mod pax;
mod split;
mod stream;
mod tar;
mod whiteout;
mod windows;

use std::io::{self, BufRead};

pub(crate) use attributes::disinherit;
pub(crate) use budget::Budget;
pub use budget::Limits;
pub(crate) use compare::compare;
pub(crate) use directory::copy_directory;
pub(crate) use entry::{Fault, Kind};
pub(crate) use format::Peeked;
pub(crate) use layer::LayerWriter;
pub(crate) use lower::Lowers;
pub(crate) use split::{AssembleError, SplitWriter, assemble};
pub(crate) use stream::{Failure, Sink, unpack_stream};
pub(crate) use tar::TarReader;

/// `Read::read` of what is buffered anyway.
fn read_buffered(input: &mut impl BufRead, out: &mut [u8]) -> io::Result<usize> {
    let available = input.fill_buf()?;
    let count = available.len().min(out.len());
    out[..count].copy_from_slice(&available[..count]);
    input.consume(count);
    Ok(count)
}
