//! Threads on which queries are parsed and evaluated.
//!
//! Parsing and evaluation go as deep as a query is nested, which takes more stack than the threads of the runtime
//! have. A thread that is done waits a while for the next query: to begin one takes longer than many a query.

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use std::io;
use std::time::Duration;

/// How much stack a thread needs to parse and evaluate the deepest query that the bounds allow.
pub const STACK_BYTES: usize = 64 << 20;

/// How long a thread waits for the next query before it ends.
const IDLE_MAX: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// As many threads as there is work at once, which the caller bounds. A cheap clone.
#[derive(Clone)]
pub struct QueryThreads {
    /// Without room: a job is handed to a thread that waits for it.
    jobs: (Sender<Job>, Receiver<Job>),
}

impl Default for QueryThreads {
    fn default() -> Self {
        Self { jobs: bounded(0) }
    }
}

impl QueryThreads {
    /// Does work on one of the threads; does not wait for it.
    ///
    /// # Errors
    /// When none is free and the system gives no other.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let (free, waiting) = &self.jobs;
        let job = match free.try_send(Box::new(work)) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => job,
        };
        let waiting = waiting.clone();
        let doing = move || {
            job();
            while let Ok(job) = waiting.recv_timeout(IDLE_MAX) {
                job();
            }
        };
        std::thread::Builder::new().name("query".to_owned()).stack_size(STACK_BYTES).spawn(doing).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::sync::mpsc;

    #[test]
    fn work_at_once_has_threads_of_its_own_and_later_work_takes_them_again() {
        let threads = QueryThreads::default();
        let (told, names) = mpsc::channel();
        let mut seen = HashSet::new();
        let (go_on, held) = crossbeam::channel::bounded::<()>(0);
        for _ in 0..3 {
            let (told, held) = (told.clone(), held.clone());
            let work = move || {
                told.send(std::thread::current().id()).expect("heard");
                let _ = held.recv();
            };
            threads.run(work).expect("begun");
            assert!(seen.insert(names.recv().expect("told")), "a thread that is still at work");
        }
        drop(go_on);
        // A thread waits for work as soon as it has done what it had; until one does, another one is begun.
        let again = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            let told = told.clone();
            threads.run(move || told.send(std::thread::current().id()).expect("heard")).expect("begun");
            seen.contains(&names.recv().expect("told"))
        });
        assert!(again, "no thread was taken again");
    }

    #[test]
    fn work_that_panics_ends_its_thread_alone() {
        let threads = QueryThreads::default();
        threads.run(|| panic!("of the test")).expect("begun");
        let (told, heard) = mpsc::channel();
        threads.run(move || told.send(()).expect("heard")).expect("begun");
        heard.recv().expect("done");
    }
}
