//! What is sent about requests, at a receiver that checks it.

use super::*;

/// What came in a POST.
struct Received {
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

/// Answers each POST with the next of these statuses, then with the last of them.
async fn receiver(statuses: &'static [u16]) -> (SocketAddr, mpsc::UnboundedReceiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (send, receive) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let end = loop {
                assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
                if let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
                    break end;
                }
            };
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let headers: BTreeMap<String, String> = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
                .collect();
            let length: usize = headers["content-length"].parse().unwrap();
            while bytes.len() < end + 4 + length {
                assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
            }
            let status = statuses.get(number).or(statuses.last()).unwrap();
            let answer =
                format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nlocation: /other\r\nconnection: close\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            let _ = send.send(Received { headers, body: bytes[end + 4..].to_vec() });
        }
    });
    (address, receive)
}

/// As the specification says, in code of its own.
fn check_signature(received: &Received) {
    let header = |name: &str| received.headers[name].clone();
    let sent_at: i64 = header("webhook-timestamp").parse().unwrap();
    assert!((now().unix_millis() / 1000 - sent_at).abs() < 30);
    let mut signed = format!("{}.{sent_at}.", header("webhook-id")).into_bytes();
    signed.extend_from_slice(&received.body);
    let key = ring::hmac::Key::new(
        ring::hmac::HMAC_SHA256,
        &STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap(),
    );
    let signature = header("webhook-signature");
    let (version, tag) = signature.split_once(',').unwrap();
    assert_eq!(version, "v1");
    ring::hmac::verify(&key, &signed, &STANDARD.decode(tag).unwrap()).unwrap();
}

#[test]
fn messages_are_signed_tell_no_values_and_one_that_is_down_slows_nobody() {
    block(async {
        let (webhook, mut hooked) = receiver(&[500, 302, 204]).await;
        let (chat, mut chatted) = receiver(&[200]).await;
        let files = tempfile::tempdir().unwrap();
        let file = |name: &str, text: String| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let notify = format!(
            "notify:\n  - webhook: {{url: {{file: '{}'}}, secret: {{file: secret}}}}\n  - slack: {{url: {{file: '{}'}}}}\n",
            file("webhook", format!("http://{webhook}/hook")),
            file("chat", format!("http://{chat}/services/token")),
        );
        let place = Place::new(&notify).await;
        let id = place.asked(1, &["bulk"], Duration::ZERO).await;

        let told = chatted.recv().await.unwrap();
        let body: Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!((&body["unfurl_links"], &body["unfurl_media"]), (&json!(false), &json!(false)));
        let text = body.to_string();
        assert!(text.contains(&id) && text.contains("&lt;!channel&gt;") && text.contains("because"), "{text}");
        assert!(!text.contains(['<', '@', '\u{202e}']), "{text}");

        let first = hooked.recv().await.unwrap();
        check_signature(&first);
        let body: Value = serde_json::from_slice(&first.body).unwrap();
        assert_eq!((&body["type"], &body["data"]["approval"]["id"]), (&json!("approval.requested"), &json!(id)));
        assert_eq!(body["data"]["card"]["sql"], card().sql);
        assert_eq!(body["data"]["card"]["parameters"], json!([{"bytes": 7}, null]));
        for text in [told.body, first.body.clone()].map(|body| String::from_utf8(body).unwrap()) {
            assert!(!text.contains("hunter2") && !text.contains("sampled"), "{text}");
        }
        // The chat hears of the decision while the webhook's message waits for its next attempt.
        let (status, _) = place.act(("bob", "owners"), &id, "deny", json!({"reason": "no"})).await;
        assert_eq!(status, 200);
        let closed: Value = serde_json::from_slice(&chatted.recv().await.unwrap().body).unwrap();
        assert!(closed["text"].as_str().unwrap().contains("denied"), "{closed}");
        // A redirect is not followed. Neither has arrived, and both come again under their own names, in either order.
        let second = hooked.recv().await.unwrap();
        let mut names = BTreeMap::new();
        for received in [second, hooked.recv().await.unwrap(), hooked.recv().await.unwrap()] {
            check_signature(&received);
            *names.entry(received.headers["webhook-id"].clone()).or_insert(0) += 1;
        }
        assert_eq!((names.len(), names[&first.headers["webhook-id"]]), (2, 1), "{names:?}");
        place.stop().await;
    });
}
