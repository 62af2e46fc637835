//! The hand-over of frames from the stream to the workers, by way of the spool.
//!
//! The stream is never held back by a worker: every frame goes to the spool first, and only the newest few are also kept in memory. A worker that
//! keeps up takes its frame from memory; one that does not reads it from the spool.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bbolt::ReadAt;

use crate::failure::{Failure, Outcome};
use crate::limits::{FRAME, FRAMES_IN_MEMORY};
use crate::spool::Spool;

/// One frame of the database, all of [`FRAME`] bytes but for the last.
#[derive(Debug)]
pub struct Frame {
    /// Its place in the database, counted in frames from 0.
    pub index: u64,
    /// Its bytes. Give them back with [`Feed::recycle`].
    pub bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct State {
    /// Frames that lie in the spool.
    ready: u64,
    /// The next frame that no worker took yet.
    next: u64,
    /// The newest frames, oldest first.
    recent: VecDeque<Frame>,
    /// Buffers to be used again: fresh ones of this size cost page faults.
    spare: Vec<Vec<u8>>,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Complete,
    Aborted,
}

/// Where one stream ends and several workers begin.
#[derive(Debug)]
pub struct Feed {
    spool: Arc<Spool>,
    state: Mutex<State>,
    changed: Condvar,
}

impl Feed {
    /// A feed through this spool, which must be empty.
    #[must_use]
    pub fn new(spool: Arc<Spool>) -> Self {
        assert!(spool.is_empty(), "a feed begins with an empty spool");
        Self { spool, state: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing is left half-changed by a panic in here, so a poisoned lock is as good as any.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer for the next frame, empty.
    #[must_use]
    pub fn buffer(&self) -> Vec<u8> {
        let spare = self.lock().spare.pop();
        spare.unwrap_or_else(|| Vec::with_capacity(FRAME))
    }

    /// Takes a buffer back.
    pub fn recycle(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut state = self.lock();
        if state.spare.len() < FRAMES_IN_MEMORY {
            state.spare.push(buffer);
        }
    }

    /// Adds the next frame. Only the last one may be shorter than [`FRAME`].
    pub fn push(&self, bytes: Vec<u8>) -> Outcome<()> {
        self.spool.append(&bytes)?;
        let mut state = self.lock();
        let index = state.ready;
        state.ready += 1;
        state.recent.push_back(Frame { index, bytes });
        let dropped = if state.recent.len() > FRAMES_IN_MEMORY { state.recent.pop_front() } else { None };
        drop(state);
        self.changed.notify_all();
        if let Some(frame) = dropped {
            self.recycle(frame.bytes);
        }
        Ok(())
    }

    /// Says that the stream is complete: workers end when they have taken what is there.
    pub fn complete(&self) {
        self.end(End::Complete);
    }

    /// Says that nothing of this stream is wanted: workers end at once.
    pub fn abort(&self) {
        self.end(End::Aborted);
    }

    fn end(&self, end: End) {
        let mut state = self.lock();
        if state.end != Some(End::Aborted) {
            state.end = Some(end);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The next frame, in order over all workers; waits for it. `None` at the end, an error once the stream was given up: what was taken so far
    /// must not be mistaken for the whole.
    pub fn take(&self) -> Outcome<Option<Frame>> {
        let mut state = self.lock();
        loop {
            if state.end == Some(End::Aborted) {
                return Err(Failure::failed("the stream was given up"));
            }
            if state.next < state.ready {
                break;
            }
            if state.end == Some(End::Complete) {
                return Ok(None);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let index = state.next;
        state.next += 1;
        while state.recent.front().is_some_and(|frame| frame.index < index) {
            if let Some(frame) = state.recent.pop_front() {
                state.spare.push(frame.bytes);
            }
        }
        if state.recent.front().is_some_and(|frame| frame.index == index) {
            return Ok(state.recent.pop_front());
        }
        drop(state);
        self.read(index).map(Some)
    }

    fn read(&self, index: u64) -> Outcome<Frame> {
        let offset = index * FRAME as u64;
        let length = (self.spool.len() - offset).min(FRAME as u64) as usize;
        let mut bytes = self.buffer();
        bytes.resize(length, 0);
        self.spool.read_exact_at(&mut bytes, offset).map_err(|error| Failure::failed(format!("the spool cannot be read: {error}")))?;
        Ok(Frame { index, bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::SpoolOptions;

    fn feed(directory: &std::path::Path) -> Feed {
        let options = SpoolOptions { directory: Some(directory.to_owned()), ..SpoolOptions::default() };
        Feed::new(Arc::new(Spool::create(&options).unwrap()))
    }

    #[test]
    fn late_workers_get_every_frame_once_and_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let feed = feed(directory.path());
        for frame in 0..8_u8 {
            feed.push(vec![frame; if frame == 7 { 10 } else { FRAME }]).unwrap();
        }
        feed.complete();
        for expected in 0..8_u8 {
            let frame = feed.take().unwrap().unwrap();
            assert_eq!(frame.index, u64::from(expected));
            assert_eq!(frame.bytes.len(), if expected == 7 { 10 } else { FRAME });
            assert!(frame.bytes.iter().all(|byte| *byte == expected));
            feed.recycle(frame.bytes);
        }
        assert!(feed.take().unwrap().is_none());
    }

    #[test]
    fn an_aborted_stream_ends_the_workers_at_once() {
        let directory = tempfile::tempdir().unwrap();
        let feed = feed(directory.path());
        feed.push(vec![1; FRAME]).unwrap();
        feed.abort();
        feed.complete();
        feed.take().unwrap_err();
    }
}
