//! A real Prometheus in agent mode with the shipped configuration, and one that takes what the agent sends.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::Given;
use crate::support::eventually_within;
use crate::system::{PATIENCE, address, page};

const RECEIVER: &str = "127.0.0.1:9091";
const AGENT: &str = "127.0.0.1:9095";
const SHIPPED: &str = "/usr/share/doc/pyrycode-relay/examples/prometheus";

const KEYS_OF_TIME: [&str; 2] = ["scrape_interval", "scrape_timeout"];

/// A Prometheus, which is ended when this is dropped.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Prometheus {
    fn start(name: &str, config: &str, listen: &str, options: &[&str]) -> Self {
        let directory = PathBuf::from("/run/prometheus-test").join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let file = directory.join("prometheus.yml");
        fs::write(&file, config).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--web.listen-address={listen}"))
            .args(options)
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("prometheus");
        let started = Self(child);
        eventually_within(PATIENCE, name, || {
            std::net::TcpStream::connect(address(listen)).map(drop).map_err(|error| {
                format!("{error}: {}", fs::read_to_string(directory.join("log")).unwrap_or_default())
            })
        });
        started
    }
}

/// The first value that a query yields.
fn query(query: &str) -> Option<f64> {
    let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer: Value =
        serde_json::from_str(&page(RECEIVER, &format!("/api/v1/query?query={escaped}"))).expect("JSON");
    answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
}

pub fn scraped(_: &Given) {
    let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let receiver = format!("rule_files: [\"{SHIPPED}/rules.yml\"]\nglobal: {{ evaluation_interval: 1s }}\n");
    let options = ["--web.enable-remote-write-receiver", "--storage.tsdb.path=data"];
    let _receiver = Prometheus::start("receiver", &receiver, RECEIVER, &options);
    let shipped = fs::read_to_string(format!("{SHIPPED}/agent.yml")).expect("the shipped configuration");
    let url = shipped
        .lines()
        .find_map(|line| line.trim().trim_start_matches("- ").strip_prefix("url: "))
        .expect("a url");
    // Every second, so that nobody waits, and to the one beside it; all else is as shipped.
    let often = |line: &str| {
        let (key, _) = line.split_once(':').filter(|(key, _)| KEYS_OF_TIME.contains(&key.trim()))?;
        Some(format!("{key}: 1s"))
    };
    let config: Vec<_> = shipped
        .replace(url, &format!("http://{RECEIVER}/api/v1/write"))
        .lines()
        .map(|line| often(line).unwrap_or_else(|| line.to_owned()))
        .collect();
    let options = ["--enable-feature=agent", "--storage.agent.path=data"];
    let _agent = Prometheus::start("agent", &config.join("\n"), AGENT, &options);
    for series in
        ["up{job=\"pyrycode-relay\"} == 1", "pyrycode_relay_ready == 1", "pyrycode_relay_build_info == 1"]
    {
        let when = eventually_within(PATIENCE, series, || {
            query(&format!("timestamp({series})")).ok_or_else(|| format!("{:?}", query("up")))
        });
        assert!(when >= began, "{when} is before {began}");
    }
    assert!(query("scrape_samples_scraped").is_some_and(|samples| samples > 100.0));
    let alerts = query("count(ALERTS{alertstate=\"firing\"}) or vector(0)");
    assert_eq!(alerts, Some(0.0), "{}", page(RECEIVER, "/api/v1/alerts"));
}
