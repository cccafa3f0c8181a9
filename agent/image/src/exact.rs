//! Whether every layer is, in all that a container sees of it, what its archive makes.

use std::collections::HashSet;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::incoming::{HeldLayer, LayerFailure, explain, write_layer};
use crate::store::{Temporary, open_directory};
use crate::unpack::{AssembleError, Limits, Lowers, assemble, compare, unpack_stream};
use crate::{ImageError, Store};

/// A directory that nothing tells the time of has that of its making; the clock that files are given goes by ticks.
const TICK: i64 = 1;

impl Store {
    /// Unpacks every layer again, beside itself and one after another, and compares: whether files have their content, and
    /// names, kinds, owners, modes, times and extended attributes as well. What is wrong, for people.
    /// [`Store::verify_whole`] is a part of it, but for the layers above one that is damaged. It needs as much room as the
    /// largest layer takes.
    ///
    /// It does not see when a file was last read, flags of the file system (`chattr`), and extended attributes of what is
    /// neither file nor directory.
    ///
    /// # Errors
    ///
    /// [`ImageError::DiskFull`], and [`ImageError::Store`] when the store cannot be read at all.
    pub fn verify_exact(&self) -> Result<Vec<String>, ImageError> {
        let mut problems = self.verify()?;
        let work = self.temporary()?;
        let mut seen = HashSet::new();
        for image in self.list()? {
            let mut held = Vec::new();
            for layer in &image.layers {
                // One that is missing is among the problems already, and those above it cannot be made again.
                let Some(layer) = self.hold_stored(&layer.chain_id)? else { break };
                held.push(layer);
            }
            for index in 0..held.len() {
                if !seen.insert(held[index].layer.chain_id) {
                    continue;
                }
                let before = problems.len();
                match compared(&held, index, &work) {
                    Ok(found) => problems.extend(found),
                    Err(error @ ImageError::DiskFull { .. }) => return Err(error),
                    Err(error) => problems.push(error.to_string()),
                }
                work.clear_now()?;
                if problems.len() > before {
                    // What those above it would be is not to be told: they take after it.
                    break;
                }
            }
        }
        work.remove()?;
        Ok(problems)
    }
}

/// What is different about a layer, of which all below are held.
fn compared(held: &[HeldLayer], index: usize, work: &Temporary) -> Result<Vec<String>, ImageError> {
    let layer = &held[index];
    let damaged = |problem: String| ImageError::Damaged {
        layer: layer.layer.diff_id,
        path: layer.path.clone(),
        problem,
    };
    let directory = open_directory(&layer.path)?;
    let began = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let (reader, writer) = io::pipe().map_err(ImageError::store("make a pipe for", &layer.path))?;
    let lower = |above: usize| Ok(Arc::clone(&held[index - 1 - above].diff));
    let lowers = Lowers::new(index, &lower);
    let name = layer.layer.diff_id.to_string();
    let made = thread::scope(|scope| {
        let source = scope.spawn(|| {
            let mut out = BufWriter::with_capacity(256 << 10, writer);
            assemble(directory.as_fd(), &mut out)?;
            out.flush().map_err(AssembleError::Output)
        });
        let made = write_layer(&work.path, &name, Limits::default(), lowers, |sink| {
            let streamed =
                unpack_stream(reader, None, sink).map_err(|failure| LayerFailure::Fault(failure.fault))?;
            Ok((streamed.diff_id, streamed.archive_size))
        });
        match source.join() {
            // It is why there was no more to unpack.
            Ok(Err(AssembleError::Damaged(problem))) => Err(damaged(problem)),
            Ok(_) => made,
            Err(_) => Err(damaged("the thread that reads it panicked".to_owned())),
        }
    });
    let (found, _) = made?;
    if found != layer.layer.diff_id {
        return Err(damaged(format!("its archive would have digest {found}: a file was changed")));
    }
    let again = open_directory(&work.path.join("diff"))?;
    let began = i64::try_from(began).unwrap_or(i64::MAX) - TICK;
    let problems = compare(&layer.diff, &again, began).map_err(|fault| explain(&name, &layer.path, fault))?;
    Ok(problems.into_iter().map(|problem| damaged(problem).to_string()).collect())
}
