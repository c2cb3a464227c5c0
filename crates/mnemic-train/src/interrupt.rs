//! Stopping a run from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// A flag that asks training to save and stop after the current step.
///
/// ```
/// use mnemic_train::Interrupt;
/// let interrupt = Interrupt::new();
/// let for_another_thread = interrupt.clone();
/// for_another_thread.request();
/// assert!(interrupt.is_requested());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// A flag that only [`Interrupt::request`] sets.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that SIGINT (Ctrl-C) and SIGTERM set. A second signal ends the process at once, with status 130. Meant to
    /// be called once, by a program and not by a library: the signals stay caught until the process ends.
    ///
    /// # Errors
    /// The system refuses to register the signals.
    pub fn on_signals() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // In this order: the first signal finds the flag unset, passes, and sets it.
            signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone())
                .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
                .map_err(Error::io("signal handler"))?;
        }
        Ok(Self(flag))
    }

    /// Asks training to stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether training was asked to stop.
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
