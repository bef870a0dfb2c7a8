//! The admin listener, and what the public port shows.

use crate::harness::{Plan, Request, ask, python, soon};
use crate::page::Page;

#[tokio::test]
async fn the_page_is_what_prometheus_reads() {
    let server = Plan::new().start().await;
    let page = Page::of(&server).await;
    let (families, content) = python("metrics.py").input(&page.text).run().await;
    assert!(content, "{families}");
    for (family, kind) in [
        ("gw_connections", "gauge"),
        ("gw_http_requests", "counter"),
        ("gw_loop_lag_seconds", "histogram"),
        ("gw_worker_restarts", "counter"),
    ] {
        assert_eq!(families[family], kind, "{families}");
    }
}

#[tokio::test]
async fn the_public_port_shows_what_it_is_told_to() {
    for (shown, expected) in [(true, (200, 200, 405)), (false, (404, 404, 404))] {
        let config = format!(
            "admin = {{ public_health = {shown}, public_emit = {shown} }}\n\
             emit = {{ secret = '0123456789abcdef' }}\nworkers = {{ count = 1 }}"
        );
        let server = Plan::new().with(&config).launch().await;
        server.serving().await;
        let status = async |addr, path| soon(path, ask(addr, Request::get(path))).await.unwrap().status;
        let public = server.addr;
        let found = (
            status(public, "/api/live").await,
            status(public, "/api/ready").await,
            status(public, "/api/emit").await,
        );
        assert_eq!(found, expected);
        assert_eq!(status(public, "/metrics").await, 404);
        let admin = server.admin;
        for (path, code) in [
            ("/api/live", 200),
            ("/api/ready", 200),
            ("/api/emit", 405),
            ("/metrics", 200),
            ("/socket.io/?EIO=4&transport=polling", 404),
        ] {
            assert_eq!(status(admin, path).await, code, "{path}");
        }
        let plain = soon("a scrape", ask(admin, Request::get("/metrics"))).await.unwrap();
        assert_eq!(
            plain.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        assert!(
            !plain.text().contains("# EOF") && plain.text().contains("_total counter\n"),
            "{}",
            plain.text()
        );
        let post = soon("a POST", ask(admin, Request::post("/metrics", ""))).await.unwrap();
        assert_eq!(post.status, 405);
    }
}

#[tokio::test]
async fn a_taken_address_is_a_fault_only_if_somebody_chose_it() {
    let first = Plan::new().start().await;
    let taken = format!("admin = {{ address = '{}' }}", first.admin);
    let mut second = Plan::new().with(&taken).launch().await;
    let status = second.exit_within(harness::PATIENCE).await;
    assert_eq!(status.code(), Some(78));
    let log = second.log();
    assert!(
        log.contains(&format!("admin.address: {}: bind: ", first.admin)),
        "{log}"
    );
}
