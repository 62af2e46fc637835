//! Mail, against a server that knows enough of SMTP.

use std::sync::Arc;

use engine::config::Smtp;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

const PASSWORD: &str = "correct horse";

/// What the server does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    StartTls,
    Tls,
    /// It refuses every recipient for good.
    Refusing,
    /// It has no time at first.
    BusyOnce,
}

struct Server {
    port: u16,
    heard: UnboundedReceiver<String>,
    ca: tempfile::NamedTempFile,
}

/// A server's side of TLS for localhost, and who vouches for it.
pub(super) fn authority() -> (TlsAcceptor, tempfile::NamedTempFile) {
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let ca = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ca.path(), signed.cert.pem()).unwrap();
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), ca)
}

async fn server(kind: Kind) -> Server {
    let (acceptor, ca) = authority();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, heard) = unbounded_channel();
    tokio::spawn(async move {
        let mut busy = kind == Kind::BusyOnce;
        while let Ok((stream, _)) = listener.accept().await {
            serve(stream, kind, std::mem::take(&mut busy), &acceptor, &told).await;
        }
    });
    Server { port, heard, ca }
}

async fn serve(stream: TcpStream, kind: Kind, busy: bool, acceptor: &TlsAcceptor, told: &UnboundedSender<String>) {
    if kind == Kind::Tls {
        if let Ok(stream) = acceptor.accept(stream).await {
            drop(speak(stream, kind, busy, true, true, told).await);
        }
        return;
    }
    if let Some(stream) = speak(stream, kind, busy, true, false, told).await
        && let Ok(stream) = acceptor.accept(stream).await
    {
        drop(speak(stream, kind, busy, false, true, told).await);
    }
}

/// Speaks until the end, or until the client wants TLS: then the stream comes back.
async fn speak<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    kind: Kind,
    busy: bool,
    greets: bool,
    is_private: bool,
    told: &UnboundedSender<String>,
) -> Option<S> {
    let mut stream = BufReader::new(stream);
    if greets {
        let greeting: &[u8] = if busy { b"421 busy\r\n" } else { b"220 localhost\r\n" };
        stream.write_all(greeting).await.ok()?;
    }
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let _ = told.send(line.trim_end().to_owned());
        let word = line.split([' ', ':', '\r']).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match word.as_str() {
            "EHLO" if is_private => "250-localhost\r\n250 AUTH PLAIN\r\n",
            "EHLO" if kind == Kind::StartTls => "250-localhost\r\n250 STARTTLS\r\n",
            "EHLO" => "250 localhost\r\n",
            "STARTTLS" => {
                stream.write_all(b"220 go\r\n").await.ok()?;
                return Some(stream.into_inner());
            }
            "AUTH" => "235 yes\r\n",
            "RCPT" if kind == Kind::Refusing => "550 no such person\r\n",
            "DATA" => {
                stream.write_all(b"354 go\r\n").await.ok()?;
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).await.ok()? == 0 {
                        return None;
                    }
                    if line == ".\r\n" {
                        break;
                    }
                    let _ = told.send(line.trim_end().to_owned());
                }
                "250 queued as 42\r\n"
            }
            "QUIT" => "221 bye\r\n",
            _ => "250 ok\r\n",
        };
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

impl Server {
    fn smtp(&self, scheme: &str) -> Smtp {
        Smtp {
            server: format!("{scheme}://localhost:{}", self.port),
            from: "Lifeboat <lifeboat@example.org>".to_owned(),
            to: vec!["ops@example.org".to_owned(), "Other <other@example.org>".to_owned()],
            ca_file: Some(self.ca.path().to_owned()),
            ..Smtp::default()
        }
    }

    fn heard(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.heard.try_recv().ok()).collect()
    }
}

async fn tell(smtp: Smtp) -> Answer {
    let answer = send_with(&of(Notifier { smtp: Some(smtp), ..Notifier::default() }), &message(), &[Duration::ZERO; 2]).await;
    assert!(!format!("{answer:?}").contains(PASSWORD));
    answer
}

fn has(heard: &[String], beginning: &str) -> bool {
    heard.iter().any(|line| line.starts_with(beginning))
}

#[tokio::test]
async fn mail_goes_to_everybody() {
    let mut server = server(Kind::Plain).await;
    let told = tell(server.smtp("smtp+plain")).await;
    assert_eq!((told.outcome.as_deref(), told.tries), (Ok("250 queued as 42"), 1));
    let heard = server.heard();
    for line in ["EHLO host1", "MAIL FROM:<lifeboat@example.org>", "RCPT TO:<ops@example.org>", "RCPT TO:<other@example.org>"] {
        assert!(has(&heard, line), "{line}: {heard:?}");
    }
    for line in ["Subject: prod: the backup failed", "Date: Fri, 02 Jan 2026 03:04:05", "etcd cannot be reached", "lifeboat on host1"] {
        assert!(has(&heard, line), "{line}: {heard:?}");
    }
}

#[tokio::test]
async fn passwords_go_over_tls_only() {
    let dir = tempfile::TempDir::new().unwrap();
    let password_file = dir.path().join("password");
    std::fs::write(&password_file, format!("{PASSWORD}\n")).unwrap();
    for (kind, scheme) in [(Kind::StartTls, "smtp"), (Kind::Tls, "smtps")] {
        let mut server = server(kind).await;
        let smtp = Smtp { user: Some("u".to_owned()), password_file: Some(password_file.clone()), ..server.smtp(scheme) };
        let told = tell(smtp).await;
        assert_eq!(told.outcome.as_deref(), Ok("250 queued as 42"), "{scheme}");
        let heard = server.heard();
        assert_eq!(has(&heard, "STARTTLS"), kind == Kind::StartTls);
        assert!(has(&heard, "AUTH PLAIN"), "{heard:?}");
    }
    // A server that does not offer TLS gets nothing.
    let mut server = server(Kind::Plain).await;
    assert!(tell(server.smtp("smtp")).await.outcome.is_err());
    assert!(!has(&server.heard(), "MAIL"));
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_refused() {
    let mut server = server(Kind::Tls).await;
    let told = tell(Smtp { ca_file: None, ..server.smtp("smtps") }).await;
    assert!(told.outcome.is_err() && !has(&server.heard(), "EHLO"));
}

#[tokio::test]
async fn a_refusal_is_not_repeated_and_a_busy_server_is_asked_again() {
    let refusing = server(Kind::Refusing).await;
    let told = tell(refusing.smtp("smtp+plain")).await;
    assert!(told.tries == 1 && told.outcome.as_ref().unwrap_err().contains("no such person"), "{told:?}");
    let busy = server(Kind::BusyOnce).await;
    let told = tell(busy.smtp("smtp+plain")).await;
    assert_eq!((told.outcome.as_deref(), told.tries), (Ok("250 queued as 42"), 2));
}
