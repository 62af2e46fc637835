//! HTTP channels.

use engine::config::{Address, Ntfy, Webhook};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

/// No pauses between three tries.
const AT_ONCE: [Duration; 2] = [Duration::ZERO; 2];
const SECRET: &str = "T0SECRET0TOKEN";

/// A server that answers the requests it gets with these bytes, one after another, the last ones forever; it hands over what it was asked. Empty bytes are
/// silence.
async fn server(answers: Vec<Vec<u8>>) -> (String, UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/{SECRET}", listener.local_addr().unwrap());
    let (asked, heard) = unbounded_channel();
    tokio::spawn(async move {
        let mut answers = answers.into_iter().peekable();
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answers.next_if(|_| true).unwrap_or_default();
            let again = answer.clone();
            if answers.peek().is_none() {
                answers = vec![again].into_iter().peekable();
            }
            let _ = asked.send(request(&mut stream).await);
            let _ = stream.write_all(&answer).await;
            if answer.is_empty() {
                held.push(stream);
            }
        }
    });
    (url, heard)
}

/// A request with its body, by its Content-Length.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                return text;
            }
        }
        match stream.read(&mut piece).await {
            Ok(len @ 1..) => bytes.extend_from_slice(&piece[..len]),
            _ => return text,
        }
    }
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).into_bytes()
}

fn redirect(status: &str, to: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
}

fn slack(url: &str) -> Receiver {
    of(Notifier { slack: Some(Address { url: Some(url.to_owned()), ..Address::default() }), ..Notifier::default() })
}

async fn tell(receiver: &Receiver) -> Answer {
    let answer = send_with(receiver, &message(), &AT_ONCE).await;
    let shown = format!("{answer:?}");
    assert!(!shown.contains(SECRET), "{shown}");
    answer
}

#[tokio::test]
async fn slack_gets_a_text() {
    let (url, mut heard) = server(vec![answer("200 OK", "ok")]).await;
    let told = tell(&slack(&url)).await;
    assert_eq!((told.outcome, told.tries), (Ok("200 OK".to_owned()), 1));
    let asked = heard.recv().await.unwrap();
    assert!(asked.starts_with(&format!("POST /{SECRET} HTTP/1.1")) && asked.contains("content-type: application/json"), "{asked}");
    assert!(asked.contains("*prod: the backup failed*"), "{asked}");
    assert_eq!(told.place.unwrap(), url.rsplit_once('/').unwrap().0);
}

#[tokio::test]
async fn a_server_in_trouble_is_tried_again() {
    let (url, _heard) =
        server(vec![answer("500 Internal Server Error", "oops"), answer("429 Too Many Requests", ""), answer("200 OK", "")]).await;
    let told = tell(&slack(&url)).await;
    assert_eq!((told.outcome, told.tries), (Ok("200 OK".to_owned()), 3));
    let (url, _heard) = server(vec![answer("503 Service Unavailable", &format!("{}{SECRET}\u{1b}[2J", "busy ".repeat(100_000)))]).await;
    let told = tell(&slack(&url)).await;
    let why = told.outcome.unwrap_err();
    assert!(told.tries == 3 && why.contains("503") && why.len() < 300 && !why.contains('\u{1b}'), "{why}");
}

#[tokio::test]
async fn who_says_no_is_not_asked_again() {
    let (url, _heard) = server(vec![answer("404 Not Found", &format!("no_service at /{SECRET}"))]).await;
    let told = tell(&slack(&url)).await;
    assert_eq!((told.outcome.unwrap_err().as_str(), told.tries), ("it answers 404 Not Found: no_service at /***", 1));
}

#[tokio::test]
async fn a_message_follows_no_redirection_to_another_host() {
    let (other, mut not_asked) = server(vec![answer("200 OK", "")]).await;
    for status in ["307 Temporary Redirect", "301 Moved Permanently"] {
        let (url, _heard) = server(vec![redirect(status, &other)]).await;
        let told = tell(&slack(&url)).await;
        assert!(told.tries == 1 && told.outcome.unwrap_err().contains("points to http://127.0.0.1:"), "{status}");
    }
    assert!(not_asked.try_recv().is_err());
    // 303 would ask again without the body.
    let (url, _heard) = server(vec![redirect("303 See Other", "/elsewhere"), answer("200 OK", "")]).await;
    assert!(tell(&slack(&url)).await.outcome.is_err());
    let (url, mut heard) = server(vec![redirect("308 Permanent Redirect", "/elsewhere"), answer("200 OK", "")]).await;
    assert!(tell(&slack(&url)).await.outcome.is_ok());
    drop(heard.recv().await);
    let second = heard.recv().await.unwrap();
    assert!(second.starts_with("POST /elsewhere") && second.contains("the backup failed"), "{second}");
    let (url, _heard) = server(vec![redirect("307 Temporary Redirect", "/round")]).await;
    assert!(tell(&slack(&url)).await.outcome.unwrap_err().contains("307"));
}

#[tokio::test]
async fn silence_garbage_and_nobody() {
    let (url, _heard) = server(vec![Vec::new()]).await;
    let post = slack::post(&Address { url: Some(url), ..Address::default() }, &message()).unwrap().within(Duration::from_millis(300));
    let trouble = post.send().await.unwrap_err();
    assert!(trouble.passing && trouble.why.contains("no answer within 0.3 s"), "{trouble:?}");
    let (url, _heard) = server(vec![b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()]).await;
    assert!(tell(&slack(&url)).await.outcome.is_err());
    let closed = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let told = tell(&slack(&format!("http://{closed}/{SECRET}"))).await;
    assert!(told.tries == 3 && told.outcome.unwrap_err().contains("refused"));
    let unread =
        of(Notifier { slack: Some(Address { url_file: Some("/no/such/file".into()), ..Address::default() }), ..Notifier::default() });
    let told = tell(&unread).await;
    assert!(told.tries == 0 && told.outcome.unwrap_err().contains("/no/such/file"));
}

#[tokio::test]
async fn a_webhook_is_what_its_template_says() {
    let dir = tempfile::TempDir::new().unwrap();
    let authorization = dir.path().join("authorization");
    std::fs::write(&authorization, format!("Bearer {SECRET}\n")).unwrap();
    let (url, mut heard) = server(vec![answer("400 Bad Request", &format!("Bearer {SECRET} is no good"))]).await;
    let webhook = Webhook {
        url: Some(url.clone()),
        authorization_file: Some(authorization),
        template: Some(r#"{"summary":"{title}"}"#.to_owned()),
        ..Webhook::default()
    };
    let told = tell(&of(Notifier { webhook: Some(webhook), ..Notifier::default() })).await;
    assert!(told.outcome.unwrap_err().contains("*** is no good"));
    let asked = heard.recv().await.unwrap();
    assert!(
        asked.contains(&format!("authorization: Bearer {SECRET}")) && asked.ends_with(r#"{"summary":"prod: the backup failed"}"#),
        "{asked}"
    );
    let bare = Webhook { url: Some(url), ..Webhook::default() };
    drop(tell(&of(Notifier { webhook: Some(bare), ..Notifier::default() })).await);
    assert!(heard.recv().await.unwrap().contains(r#""schema":"lifeboat.message/1""#));
}

#[tokio::test]
async fn ntfy_and_pings() {
    let dir = tempfile::TempDir::new().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, SECRET).unwrap();
    let (url, mut heard) = server(vec![answer("200 OK", "")]).await;
    let ntfy = Ntfy { url: Some(url.clone()), token_file: Some(token), ..Ntfy::default() };
    assert!(tell(&of(Notifier { ntfy: Some(ntfy), ..Notifier::default() })).await.outcome.is_ok());
    let asked = heard.recv().await.unwrap();
    for header in
        ["title: prod: the backup failed", "priority: high", "tags: rotating_light,prod", &format!("authorization: Bearer {SECRET}")]
    {
        assert!(asked.contains(header), "{header}: {asked}");
    }
    assert!(asked.ends_with("\r\n\r\netcd cannot be reached"), "{asked}");
    let ping = of(Notifier { ping: Some(Address { url: Some(url), ..Address::default() }), ..Notifier::default() });
    assert!(tell(&ping).await.outcome.is_ok());
    let asked = heard.recv().await.unwrap();
    assert!(asked.starts_with(&format!("POST /{SECRET}/fail ")) && asked.ends_with("etcd cannot be reached"), "{asked}");
}

#[tokio::test]
async fn several_are_told_at_once_and_answer_in_order() {
    let (good, _one) = server(vec![answer("200 OK", "")]).await;
    let (bad, _two) = server(vec![answer("403 Forbidden", "")]).await;
    let all = receivers(&[slack(&bad).notifier, slack(&good).notifier]);
    let answers = send_all(&all, &message()).await;
    assert_eq!(
        answers.iter().map(|answer| (answer.receiver.as_str(), answer.outcome.is_ok())).collect::<Vec<_>>(),
        [("slack", false), ("slack-2", true)]
    );
}

#[tokio::test]
async fn over_tls_only_who_can_prove_it_is_told() {
    let (acceptor, ca) = super::mail::authority();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/{SECRET}", listener.local_addr().unwrap().port());
    let (asked, mut heard) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = asked.send(request(&mut stream).await);
            let _ = stream.write_all(&answer("200 OK", "")).await;
            let _ = stream.shutdown().await;
        }
    });
    let to =
        |ca_file| of(Notifier { slack: Some(Address { url: Some(url.clone()), ca_file, ..Address::default() }), ..Notifier::default() });
    assert!(tell(&to(None)).await.outcome.is_err() && heard.try_recv().is_err());
    assert_eq!(tell(&to(Some(ca.path().to_owned()))).await.outcome.as_deref(), Ok("200 OK"));
    assert!(heard.recv().await.unwrap().contains("the backup failed"));
    let told = tell(&to(Some("/no/such/ca".into()))).await;
    assert!(told.tries == 1 && told.outcome.unwrap_err().contains("/no/such/ca"));
}
