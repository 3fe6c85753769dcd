//! A client that reads all the time and answers every ping, in a thread of its own, as a living peer does.

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::DEADLINE;
use super::client::{self, binary_headers, phone_headers};
use super::held::{PING, PONG, TEXT};
use super::relay::Relay;

/// One such client.
pub struct Kept {
    writer: Arc<Mutex<TcpStream>>,
    frames: Receiver<(u8, Vec<u8>)>,
}

impl Kept {
    /// A binary that claims `server_id`.
    pub fn binary(relay: &Relay, server_id: &str) -> Self {
        Self::over(client::raw(relay.address, "/v2/server", &binary_headers(server_id)))
    }

    /// A phone that dials `server_id`.
    pub fn phone(relay: &Relay, server_id: &str) -> Self {
        Self::over(client::raw(relay.address, "/v2/client", &phone_headers(server_id)))
    }

    /// A client on a connection that was upgraded.
    pub fn over(mut reader: TcpStream) -> Self {
        let writer = Arc::new(Mutex::new(reader.try_clone().expect("a second handle")));
        // Silence is for the test to judge, not for the thread.
        reader.set_read_timeout(None).unwrap();
        let (sender, frames) = channel();
        std::thread::spawn({
            let writer = Arc::clone(&writer);
            move || {
                while let Some((first, payload)) = client::read_frame(&mut reader) {
                    if first == PING {
                        let _ = writer.lock().unwrap().write_all(&client::frame(PONG, &payload));
                    } else if sender.send((first, payload)).is_err() {
                        return;
                    }
                }
            }
        });
        Self { writer, frames }
    }

    /// Sends a text message.
    pub fn send(&self, text: &str) {
        self.write(&client::frame(TEXT, text.as_bytes()));
    }

    /// Sends bytes.
    pub fn write(&self, bytes: &[u8]) {
        self.writer.lock().unwrap().write_all(bytes).expect("sends");
    }

    /// The next frame that is not a ping.
    pub fn next(&self) -> (u8, Vec<u8>) {
        self.frames.recv_timeout(DEADLINE).expect("a frame")
    }

    /// The next text message.
    pub fn text(&self) -> String {
        let (first, payload) = self.next();
        assert_eq!(first, TEXT, "{payload:?}");
        String::from_utf8(payload).expect("text in UTF-8")
    }

    /// The next text message, as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text()).expect("JSON")
    }

    /// Everything that still comes, to the end of the stream.
    pub fn rest(&self) -> Vec<(u8, Vec<u8>)> {
        std::iter::from_fn(|| self.frames.recv_timeout(DEADLINE).ok()).collect()
    }

    /// Ends the connection without a close frame.
    pub fn drop_connection(self) {
        let _ = self.writer.lock().unwrap().shutdown(std::net::Shutdown::Both);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Else its thread would hold the connection open.
        if let Ok(writer) = self.writer.lock() {
            let _ = writer.shutdown(std::net::Shutdown::Both);
        }
    }
}
