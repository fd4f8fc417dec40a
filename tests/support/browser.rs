//! Chromium without a window, driven over two pipes with the Chrome DevTools Protocol: messages are JSON that ends with
//! a zero byte.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::Command;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::process::Process;
use super::wait_for;

/// A browser with a page, or several in tabs.
pub struct Browser {
    _process: Process,
    _home: TempDir,
    commands: File,
    /// All messages from the browser so far: answers to commands, and events.
    messages: Arc<Mutex<Vec<Value>>>,
    /// The protocol's session with the tab that is shown. Empty: commands are for the browser itself.
    session: String,
    next_id: u64,
}

impl Browser {
    /// Opens a page in a window of this size. The page itself is less high.
    pub fn open(url: &str, width: u32, height: u32) -> Self {
        Self::open_with(&[], url, width, height)
    }

    /// As [`Self::open`], with these arguments for the browser.
    pub fn open_with(arguments: &[String], url: &str, width: u32, height: u32) -> Self {
        let home = tempfile::tempdir().unwrap();
        let [commands, messages] = ["commands", "messages"].map(|name| {
            let path = home.path().join(name);
            mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            path
        });
        // Chromium reads commands from descriptor 3 and writes messages to descriptor 4.
        let mut chromium = Command::new("sh");
        chromium.args(["-c", "exec chromium \"$@\" 3<\"$COMMANDS\" 4>\"$MESSAGES\"", "sh"]);
        chromium.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-extensions",
            "--hide-scrollbars",
        ]);
        chromium.args([
            "--no-first-run",
            "--disable-background-networking",
            "--remote-debugging-pipe",
        ]);
        chromium.arg(format!("--user-data-dir={}", home.path().join("profile").display()));
        chromium.arg(format!("--window-size={width},{height}")).args(arguments);
        chromium
            .env("COMMANDS", &commands)
            .env("MESSAGES", &messages)
            .env("HOME", home.path());
        let process = Process::start(&mut chromium);
        let commands = OpenOptions::new().write(true).open(commands).unwrap();
        let mut browser = Self {
            messages: read_messages(&messages),
            _process: process,
            _home: home,
            commands,
            session: String::new(),
            next_id: 0,
        };
        browser.open_tab(url);
        browser
    }

    /// Opens another tab and shows it. Returns its session, for [`Self::show`].
    pub fn open_tab(&mut self, url: &str) -> String {
        self.session.clear();
        let target = self.ask("Target.createTarget", &json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = self.ask("Target.attachToTarget", &json!({ "targetId": target, "flatten": true }));
        self.session = attached["sessionId"].as_str().unwrap().to_owned();
        for method in ["Runtime.enable", "Log.enable", "Page.enable"] {
            self.ask(method, &json!({}));
        }
        self.ask("Page.navigate", &json!({ "url": url }));
        self.tab()
    }

    /// The session of the tab that is shown.
    pub fn tab(&self) -> String {
        self.session.clone()
    }

    /// Shows the tab with this session.
    pub fn show(&mut self, session: &str) {
        session.clone_into(&mut self.session);
        self.ask("Page.bringToFront", &json!({}));
    }

    /// Sends a command, and returns its result.
    pub fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        self.next_id += 1;
        let id = self.next_id;
        let mut command = json!({ "id": id, "method": method, "params": parameters });
        if !self.session.is_empty() {
            command["sessionId"] = self.session.clone().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        let answer = wait_for(method, || {
            let messages = self.messages.lock().unwrap();
            messages.iter().find(|message| message["id"] == id).cloned()
        });
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The value of an expression in the page; promises are awaited.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let parameters = json!({ "expression": expression, "awaitPromise": true, "returnByValue": true });
        let result = self.ask("Runtime.evaluate", &parameters);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    /// Waits until an expression in the page is true.
    pub fn eventually(&mut self, expression: &str) {
        wait_for(expression, || (self.evaluate(expression) == true).then_some(()));
    }

    /// Presses a key.
    pub fn press(&mut self, key: &str) {
        let key_code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            _ => panic!("the code of {key} is not known here"),
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let event =
                json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": key_code, "text": text });
            self.ask("Input.dispatchKeyEvent", &event);
        }
    }

    /// Emulates a user who prefers this color scheme: `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask("Emulation.setEmulatedMedia", &json!({ "features": features }));
    }

    /// Changes the size of the page.
    pub fn resize(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", &size);
    }

    /// A picture of the part of the page that the window shows, as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let picture = self.ask("Page.captureScreenshot", &json!({ "format": "png" }));
        STANDARD.decode(picture["data"].as_str().unwrap()).unwrap()
    }

    /// All that the console and the log of the page have reported so far, such as errors of scripts, and what its
    /// content security policy forbade.
    pub fn complaints(&self) -> Vec<Value> {
        let messages = self.messages.lock().unwrap();
        let reported = ["Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"];
        let complaints = messages
            .iter()
            .filter(|message| reported.contains(&message["method"].as_str().unwrap_or("")));
        complaints.cloned().collect()
    }
}

fn read_messages(path: &std::path::Path) -> Arc<Mutex<Vec<Value>>> {
    let messages = Arc::<Mutex<Vec<Value>>>::default();
    let (kept, file) = (Arc::clone(&messages), File::open(path).unwrap());
    std::thread::spawn(move || {
        for message in BufReader::new(file).split(0).map_while(Result::ok) {
            kept.lock().unwrap().push(serde_json::from_slice(&message).unwrap());
        }
    });
    messages
}
