//! What was done, as a list of its inverses, run from the last to the first.

use anyhow::{Result, bail};

/// The inverses of the steps that succeeded.
#[derive(Default)]
pub(super) struct Undo(Vec<(String, Inverse)>);

type Inverse = Box<dyn FnOnce() -> Result<()>>;

impl Undo {
    /// Notes how to undo what was just done.
    pub(super) fn push(&mut self, what: String, inverse: impl FnOnce() -> Result<()> + 'static) {
        self.0.push((what, Box::new(inverse)));
    }

    /// Undoes everything, the last step first. A failure does not keep the others from being undone.
    pub(super) fn run(self) -> Result<()> {
        let mut failures = Vec::new();
        for (what, inverse) in self.0.into_iter().rev() {
            match inverse() {
                Ok(()) => println!("{what}"),
                Err(error) => failures.push(format!("{what}: {error:#}")),
            }
        }
        if !failures.is_empty() {
            bail!("not everything could be undone:\n  {}", failures.join("\n  "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn the_last_step_is_undone_first_and_a_failure_stops_nothing() {
        let undone = Rc::new(RefCell::new(Vec::new()));
        let mut undo = Undo::default();
        for step in 1..=3 {
            let undone = Rc::clone(&undone);
            undo.push(format!("step {step}"), move || {
                undone.borrow_mut().push(step);
                if step == 2 { bail!("busy") } else { Ok(()) }
            });
        }
        let error = undo.run().unwrap_err().to_string();
        assert_eq!(*undone.borrow(), [3, 2, 1]);
        assert!(error.ends_with("step 2: busy"), "{error}");
    }
}
