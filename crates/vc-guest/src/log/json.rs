//! Events as lines of JSON, with the keys that Kata Containers' agent uses.

use super::ring::LogLines;
use serde_json::{Map, Value};
use std::fmt::Debug;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// Writes each event as a line.
pub(super) struct Json(pub(super) LogLines);

impl<S: Subscriber> Layer<S> for Json {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Map::new();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let texts = [
            ("ts", timestamp(since)),
            ("level", metadata.level().to_string()),
            ("name", "vc-guest".to_owned()),
            ("source", "agent".to_owned()),
            ("subsystem", metadata.target().to_owned()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        line.extend(texts.map(|(key, text)| (key.to_owned(), Value::String(text))));
        event.record(&mut Fields(&mut line));
        self.0.push(Value::Object(line).to_string());
    }
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        let key = if field.name() == "message" { "msg" } else { field.name() };
        self.0.insert(key.to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, Value::String(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, Value::String(value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }
}

/// A time since 1970 as RFC 3339 writes it, in UTC.
fn timestamp(since: Duration) -> String {
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days to a date of the Gregorian calendar, counted from 1 March of year 0 in eras of 400 years.
    let day = days + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn an_event_is_one_line_of_json() {
        let lines = LogLines::default();
        let subscriber = tracing_subscriber::registry().with(Json(lines.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(container = %"box", pid = 7, error = ?"two\nlines", "it \"happened\"");
        });
        let all = lines.all();
        let line: Value = serde_json::from_str(&all[0]).unwrap();
        assert_eq!(all.len(), 1);
        assert!(!all[0].contains('\n'));
        assert_eq!((&line["msg"], &line["container"]), (&"it \"happened\"".into(), &"box".into()));
        assert_eq!((&line["level"], &line["pid"]), (&"INFO".into(), &7.into()));
    }

    #[test]
    fn times_are_those_of_date() {
        // From `date --utc --iso-8601=seconds --date=@N`.
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(timestamp(Duration::from_secs(seconds)), format!("{want}.000000Z"));
        }
    }
}
