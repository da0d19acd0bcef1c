//! A peer that misbehaves: slow, out of order, silent, endless, dead.

use std::time::Instant;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use super::tests::{GREETING, Peer, soon, status};
use super::*;

/// Far less than [`soon`]: what takes longer hung, and was freed by its deadline.
const PROMPT: std::time::Duration = std::time::Duration::from_secs(10);

fn get(path: &str) -> qapi::qmp::qom_get {
    qapi::qmp::qom_get { path: path.into(), property: "p".into() }
}

/// The next command: its id and the path that it asks for.
async fn next(stream: &mut BufReader<UnixStream>) -> Option<(u64, String)> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|read| *read > 0)?;
    let message: Value = serde_json::from_str(&line).ok()?;
    let path = message.pointer("/arguments/path").and_then(Value::as_str).unwrap_or_default();
    Some((message["id"].as_u64()?, path.to_owned()))
}

#[tokio::test]
async fn a_peer_that_dies_at_any_byte_hangs_nobody() {
    let dialogue = [
        format!("{GREETING}\n"),
        "{\"return\": {}, \"id\": 0}\n".to_owned(),
        "{\"event\": \"RESUME\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\n{\"return\": 7, \"id\": 1}\n"
            .to_owned(),
    ];
    let whole: usize = dialogue.iter().map(String::len).sum();
    for most in 0..=whole {
        let started = Instant::now();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let dialogue = dialogue.clone();
        let peer = tokio::spawn(async move {
            let (mut stream, mut left) = (BufReader::new(theirs), most);
            for (turn, part) in dialogue.iter().enumerate() {
                if turn > 0 && next(&mut stream).await.is_none() {
                    return;
                }
                let some = part.len().min(left);
                left -= some;
                if stream.get_mut().write_all(&part.as_bytes()[..some]).await.is_err() || some < part.len() {
                    return;
                }
            }
            // Alive until we are done.
            let _ = stream.read_to_end(&mut Vec::new()).await;
        });
        let outcome = match Qmp::connect(ours, soon()).await {
            Ok(qmp) => qmp.query(status(), soon()).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(value) => assert!(most == whole && value == 7, "{value} after {most} bytes"),
            Err(QmpError::Greeting(_) | QmpError::Closed { .. }) => assert!(most < whole),
            Err(other) => panic!("{other:?} after {most} bytes"),
        }
        assert!(started.elapsed() < PROMPT, "after {most} bytes: {:?}", started.elapsed());
        peer.await.unwrap();
    }
}

#[tokio::test]
async fn both_sides_writing_is_no_deadlock() {
    let (peer, qmp) = Peer::greet().await;
    let mut stream = peer.into_stream();
    let talk = tokio::spawn(async move {
        // More than the sockets hold, before anything is read.
        let event = format!("{{\"event\": \"NEWS\", \"data\": \"{}\"}}\n", "x".repeat(1 << 16));
        for _ in 0..64 {
            stream.get_mut().write_all(event.as_bytes()).await.unwrap();
        }
        let (id, path) = next(&mut stream).await.unwrap();
        let reply = format!("{{\"return\": {}, \"id\": {id}}}\n", path.len());
        stream.get_mut().write_all(reply.as_bytes()).await.unwrap();
        stream
    });
    let answer = qmp.query(get(&"y".repeat(1 << 20)), soon()).await;
    assert_eq!(answer.unwrap(), 1 << 20);
    talk.await.unwrap();
}

#[tokio::test]
async fn a_deadline_holds_while_the_peer_reads_nothing() {
    let (peer, qmp) = Peer::greet().await;
    let mut stream = peer.into_stream();
    let long = "z".repeat(1 << 20);
    let started = Instant::now();
    let briefly = || Deadline::after(std::time::Duration::from_millis(50));
    for _ in 0..3 * QUEUE {
        let waiting = qmp.query(get(&long), briefly());
        let answer = waiting.await;
        assert!(matches!(answer, Err(QmpError::Deadline { .. })), "{answer:?}");
    }
    assert!(started.elapsed() < 3 * PROMPT, "{:?}", started.elapsed());
    // The first was half written when its caller left, and is finished. The others were never begun.
    let (answer, mut commands) = tokio::join!(qmp.query(get("mine"), soon()), async {
        let mut commands = Vec::new();
        while let Some((id, path)) = next(&mut stream).await {
            let last = path == "mine";
            commands.push(path);
            let reply = format!("{{\"return\": \"{id}\", \"id\": {id}}}\n");
            stream.get_mut().write_all(reply.as_bytes()).await.unwrap();
            if last {
                break;
            }
        }
        commands
    });
    answer.unwrap();
    assert_eq!(commands.pop().as_deref(), Some("mine"));
    assert_eq!(commands, [long], "what nobody waits for any more is not sent");
}

#[tokio::test]
async fn a_line_of_64_mib_is_read_and_a_longer_one_ends_the_stream() {
    let line = |id: u64, size: usize| {
        let frame = format!("{{\"return\": \"\", \"id\": {id}}}\n").len();
        format!("{{\"return\": \"{}\", \"id\": {id}}}\n", "x".repeat(size - frame))
    };
    let (peer, qmp) = Peer::greet().await;
    let mut stream = peer.into_stream();
    let talk = tokio::spawn(async move {
        let (id, _) = next(&mut stream).await.unwrap();
        stream.get_mut().write_all(line(id, 64 << 20).as_bytes()).await.unwrap();
        let (id, _) = next(&mut stream).await.unwrap();
        // The other end closes before all of it is written.
        let _ = stream.get_mut().write_all(line(id, (64 << 20) + (1 << 16)).as_bytes()).await;
    });
    let most = qmp.query(get("/"), soon()).await.unwrap();
    assert!(most.as_str().is_some_and(|text| text.len() > 63 << 20));
    let more = qmp.query(get("/"), soon()).await;
    assert!(matches!(more, Err(QmpError::Closed { .. })), "{more:?}");
    talk.await.unwrap();
}

/// Numbers that look random and are the same each time (Knuth's MMIX generator).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

#[tokio::test]
async fn no_reply_goes_to_another_command_whatever_the_order() {
    for seed in 0..8 {
        let (peer, qmp) = Peer::greet().await;
        let mut stream = peer.into_stream();
        let talk = tokio::spawn(async move {
            let (mut dice, mut held) = (Dice(seed), Vec::new());
            while let Some((id, path)) = next(&mut stream).await {
                held.push(match dice.roll(8) {
                    // Never answered, refused, answered.
                    0 => continue,
                    1 => format!(
                        "{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"{path}\"}}, \"id\": {id}}}\n"
                    ),
                    _ => format!("{{\"return\": \"{path}\", \"id\": {id}}}\n"),
                });
                // Answers are kept back, and sent in any order, some in pieces, some after an event.
                while held.len() > 5 {
                    let at = usize::try_from(dice.roll(held.len() as u64)).unwrap();
                    let mut text = held.swap_remove(at);
                    if dice.roll(3) == 0 {
                        text.insert_str(0, "{\"event\": \"STOP\"}\n");
                    }
                    let (head, tail) = text.split_at(text.len() / 2);
                    let stream = stream.get_mut();
                    stream.write_all(head.as_bytes()).await.unwrap();
                    if dice.roll(2) == 0 {
                        tokio::task::yield_now().await;
                    }
                    stream.write_all(tail.as_bytes()).await.unwrap();
                }
            }
        });
        let asked = (0..200).map(async |n| {
            let path = format!("/{seed}/{n}");
            let time = std::time::Duration::from_millis(10 + n % 7 * 40);
            match qmp.query(get(&path), Deadline::after(time)).await {
                Ok(value) => assert_eq!(value, path),
                Err(QmpError::Refused { description, .. }) => assert_eq!(description, path),
                Err(QmpError::Deadline { .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        });
        futures::future::join_all(asked).await;
        drop(qmp);
        talk.await.unwrap();
    }
}

#[tokio::test]
async fn an_old_release_is_refused() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let old = GREETING.replace("\"major\": 7", "\"major\": 6");
    theirs.write_all(format!("{old}\n").as_bytes()).await.unwrap();
    let refused = Qmp::connect(ours, soon()).await.unwrap_err();
    assert_eq!(refused.to_string(), "this is QEMU 6.2; install 7.2 or later");
}
