//! Waiting for events: a question that was abandoned is taken up by the next who asks.

use std::future::Future;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use super::fault::Fault;

/// The question under way, if there is one.
#[derive(Debug, Default)]
pub(super) struct Events(Mutex<Option<JoinHandle<Result<String, Fault>>>>);

impl Events {
    /// The next event; `ask` asks the agent for it, if nobody did so far.
    ///
    /// # Cancel safety
    /// Nothing is lost: the event is kept for the next one who asks.
    #[expect(clippy::await_holding_invalid_type, reason = "who queues wants the event after this one")]
    pub(super) async fn next<F>(&self, ask: impl FnOnce() -> F) -> Result<String, Fault>
    where
        F: Future<Output = Result<String, Fault>> + Send + 'static,
    {
        let mut question = self.0.lock().await;
        let task = question.get_or_insert_with(|| tokio::spawn(ask()));
        let event = task.await;
        *question = None;
        event.unwrap_or(Err(Fault::Disconnected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_abandoned_question_is_taken_up_and_each_asks_for_another_event() {
        let events = Events::default();
        let (end, ended) = tokio::sync::oneshot::channel();
        let slow = || async move { Ok(ended.await.expect("the test sends")) };
        assert!(futures::poll!(std::pin::pin!(events.next(slow))).is_pending());
        end.send("first".to_owned()).unwrap();
        let ask = || async { Ok("second".to_owned()) };
        assert_eq!(events.next(ask).await.unwrap(), "first");
        assert_eq!(events.next(ask).await.unwrap(), "second");
        let lost = events.next(|| async { Err(Fault::Disconnected) }).await;
        assert_eq!(lost, Err(Fault::Disconnected));
        assert_eq!(events.next(ask).await.unwrap(), "second", "a failure is not kept");
    }
}
