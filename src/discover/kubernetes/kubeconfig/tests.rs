use super::*;

const FILE: &str = "\
apiVersion: v1
kind: Config
preferences: {}
current-context: edge # the one in use
contexts:
- name: other
  context: {cluster: other, user: other}
- name: edge
  context:
    cluster: central
    user: acequia
    namespace: default
clusters:
- name: central
  cluster:
    server: https://10.0.0.2:6443/prefix/
    certificate-authority-data: YXV0aG9yaXR5
    extensions: [{name: a, extension: {b: 1}}]
users:
- name: other
  user: {exec: {command: aws}}
- name: acequia
  user:
    token: secret-1
";

/// Reads a kubeconfig with this text, in a directory with the files `ca.pem` and `token`. The error is returned without
/// the path of the kubeconfig, which it must begin with.
fn read_text(text: &str) -> Result<ApiCredentials, String> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("ca.pem"), "from a file").unwrap();
    std::fs::write(directory.path().join("token"), "secret-2\n").unwrap();
    let file = directory.path().join("config");
    std::fs::write(&file, text).unwrap();
    read(&file).map_err(|error| {
        let error = crate::error::chain(&*error);
        let shown = format!("{}: ", file.display());
        error
            .strip_prefix(&shown)
            .unwrap_or_else(|| panic!("{error}"))
            .to_owned()
    })
}

/// Reads [`FILE`], with `from` replaced by `to`.
fn read_changed(from: &str, to: &str) -> Result<ApiCredentials, String> {
    assert!(FILE.contains(from), "{from}");
    read_text(&FILE.replace(from, to))
}

fn text(pem: &PemText) -> &str {
    std::str::from_utf8(&pem.text).unwrap()
}

#[test]
fn empty_paths_count_as_absent() {
    let read = read_changed(
        "certificate-authority-data: YXV0aG9yaXR5",
        "certificate-authority: \"\"",
    );
    assert!(read.unwrap().trusted.is_none());
    let files = ["tokenFile", "client-certificate", "client-key"].map(|key| format!("{key}: \"\"\n    "));
    let read = read_changed("token: secret-1", &(files.concat() + "token: secret-1")).unwrap();
    assert!(read.identity.is_none() && read.token.unwrap().text == "secret-1");
}

#[test]
fn the_cluster_and_the_user_of_the_current_context_are_used() {
    // JSON is also YAML. An empty `user` counts as none.
    let json = r#"{"current-context": "a", "contexts": [{"name": "a", "context": {"cluster": "b", "user": ""}}],
        "clusters": [{"name": "b", "cluster": {"server": "http://127.0.0.1:8001"}}], "users": null}"#;
    let read = read_text(json).unwrap();
    assert_eq!(
        (&*read.server, read.token.is_none(), read.trusted.is_none()),
        ("http://127.0.0.1:8001", true, true)
    );
    let read = read_text(FILE).unwrap();
    assert_eq!(read.server, "https://10.0.0.2:6443/prefix/");
    assert_eq!(text(&read.trusted.unwrap()), "authority");
    assert_eq!(
        (&*read.token.unwrap().text, read.identity.is_none()),
        ("secret-1", true)
    );
}

#[test]
fn paths_are_relative_to_the_kubeconfig_and_a_token_file_takes_precedence() {
    let with_files = read_changed(
        "certificate-authority-data: YXV0aG9yaXR5",
        "certificate-authority: ca.pem",
    )
    .unwrap();
    assert_eq!(text(&with_files.trusted.unwrap()), "from a file");
    let token = read_changed("token: secret-1", "token: secret-1\n    tokenFile: token")
        .unwrap()
        .token;
    assert_eq!(token.unwrap().text, "secret-2");
    let identity = "client-certificate: ca.pem\n    client-key-data: a2V5";
    let (certificate, key) = read_changed("token: secret-1", identity).unwrap().identity.unwrap();
    assert_eq!((text(&certificate), text(&key)), ("from a file", "key"));
}

#[test]
fn errors_show_names_but_no_secrets() {
    for (from, to, error) in [
        (
            "current-context: edge",
            "current-context: \"\"",
            "it has no `current-context`",
        ),
        (
            "current-context: edge",
            "current-context: edgy",
            "it has no context `edgy`",
        ),
        (
            "cluster: central",
            "cluster: peripheral",
            "it has no cluster `peripheral`",
        ),
        ("user: acequia", "user: nobody", "it has no user `nobody`"),
        (
            "token: secret-1",
            "exec: {command: secret-1}",
            "user `acequia` has `exec`, which is not supported: use `token`",
        ),
        (
            "token: secret-1",
            "username: secret-1",
            "user `acequia` has `username`, which is not supported",
        ),
        (
            "token: secret-1",
            "client-key-data: c2VjcmV0",
            "user `acequia` needs both",
        ),
        ("YXV0aG9yaXR5", "secret!", "`certificate-authority-data` is not base64"),
        (
            "extensions: ",
            "proxy-url: http://secret\n    extensions: ",
            "cluster `central` has `proxy-url`",
        ),
        (
            "extensions: ",
            "insecure-skip-tls-verify: true\n    extensions: ",
            "cluster `central` has `insecure-skip",
        ),
        ("token: secret-1", "token: {secret-1: 1}", "line 24, column "),
        ("token: secret-1", "token: \"secret-1", "it is not a valid kubeconfig"),
        (
            "user:\n    token",
            "user: [secret-1]\n  token",
            "it is not a valid kubeconfig",
        ),
    ] {
        let found = read_changed(from, to).err().unwrap_or_else(|| panic!("{to}"));
        assert!(found.contains(error), "{to}: {found}");
        assert!(!found.contains("secret") && !found.contains("c2VjcmV0"), "{found}");
    }
}
