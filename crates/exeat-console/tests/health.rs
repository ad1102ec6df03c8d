//! The health endpoints over a real socket.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use exeat_console::{Check, Readiness, StatusFn, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: console\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn readiness_follows_the_state_and_liveness_does_not() {
    let record_works = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&record_works);
    let status: StatusFn = Arc::new(move || {
        let record = match seen.load(Ordering::SeqCst) {
            true => Check::ok("record"),
            false => Check::failed("record", "could not append to the record"),
        };
        Readiness { checks: vec![Check::ok("listener"), record] }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, status, exeat_console::Desks::default(), async {
        stopped.await.ok();
    }));

    let ready = get(address, "/readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(ready.contains(r#""ready":true"#), "{ready}");

    record_works.store(false, Ordering::SeqCst);
    let not_ready = get(address, "/readyz").await;
    assert!(not_ready.starts_with("HTTP/1.1 503"), "{not_ready}");
    assert!(not_ready.contains("could not append to the record"), "{not_ready}");

    assert!(get(address, "/livez").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/nothing-here").await.starts_with("HTTP/1.1 404"));

    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the listener is still open after shutdown");
}
