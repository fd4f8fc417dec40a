//! Addresses as text, and the errors of invalid ones.

use super::*;

#[test]
fn valid_addresses_are_accepted() {
    for text in ["0.0.0.0:0", "[::]:443", "127.0.0.1:65535", "unix:/run/app.sock"] {
        assert_eq!(listen(text).unwrap().to_string(), text);
    }
    for text in [
        "10.0.0.1:1",
        "[::1]:80",
        "db.internal:5432",
        "db.internal.:5432",
        "db.internal:5432@10.0.0.1",
        "db.internal:5432@fd00::1",
        "db.internal:5432@fe80::1%lo",
        "my_db:1",
        "1a:1",
        "unix:/run/db.sock",
    ] {
        assert_eq!(server(text).unwrap().to_string(), text);
    }
    for (text, host) in [
        ("[fe80::1%1]:80", "fe80::1%1"),
        ("[fe80::1%lo]:80", "fe80::1%lo"),
        ("[::1]:80", "::1"),
        ("10.0.0.1:80", "10.0.0.1"),
        ("unix:/run/db.sock", "unix:/run/db.sock"),
    ] {
        let ServerLocation::Address(address) = server(text).unwrap() else {
            panic!("{text}")
        };
        assert_eq!(address.host_text(), host);
    }
    assert_eq!(
        server("bücher.example:1").unwrap().to_string(),
        "xn--bcher-kva.example:1"
    );
    for (text, expected) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.1", "10.0.0.1/32"),
        ("::1", "::1/128"),
    ] {
        assert_eq!(network(text).unwrap().to_string(), expected);
    }
}

#[test]
fn invalid_addresses_get_a_hint_that_fits() {
    for (text, hint) in [
        (":80", r#"write ["0.0.0.0:80", "[::]:80"]"#),
        ("80", r#"write ["0.0.0.0:80", "[::]:80"]"#),
        ("::1:80", r#"write "[::1]:80", or "[::1:80]:PORT""#),
        ("::1", r#"write "[::1]:PORT""#),
        ("[::1]", r#"write "[::1]:PORT""#),
        ("10.0.0.1", r#"write "10.0.0.1:PORT""#),
        ("[::ffff:10.0.0.1]:80", r#"write "10.0.0.1:80""#),
        ("10.0.0.1:65536", "at most 65535"),
        ("224.0.0.1:80", "multicast and broadcast addresses have no TCP"),
        ("[ff02::1]:80", "multicast and broadcast addresses have no TCP"),
        ("[ff02::1%lo]:80", "multicast and broadcast addresses have no TCP"),
        ("[::ffff:10.0.0.1%lo]:80", r#"write "[::ffff:10.0.0.1]:80""#),
        ("[fe80::1%lo]:+80", "write a number, 1 to 65535"),
        (":+80", "write a number, 1 to 65535"),
        ("[::%lo]:80", r#"write the addresses of the interface, or "[::]:80""#),
        ("[::%1]:80", r#"write the addresses of the interface, or "[::]:80""#),
        ("[2001:db8::1%lo]:80", r#"write "[2001:db8::1]:80""#),
        ("[::1%1]:80", r#"write "[::1]:80""#),
        ("10.0.0.1%eth0:80", r#"write "10.0.0.1:80""#),
    ] {
        assert_eq!(listen(text).unwrap_err().1, hint, "{text}");
    }
    for (text, hint) in [
        ("10.0.0.1:0", "at least 1"),
        ("0.0.0.0:80", "for this machine write 127.0.0.1"),
        ("[::]:80", "for this machine write [::1]"),
        ("[::%lo]:80", "for this machine write [::1]"),
        ("[::ffff:10.0.0.1%lo]:80", r#"write "[::ffff:10.0.0.1]:80""#),
        ("[ff02::1%lo]:80", "multicast and broadcast addresses have no TCP"),
        ("[::ffff:0.0.0.0]:80", "for this machine write 127.0.0.1"),
        ("255.255.255.255:80", "multicast and broadcast addresses have no TCP"),
        ("a:+80", "write a number, 1 to 65535"),
        ("tcp://10.0.0.1:80/", r#"write it without `tcp://`: "10.0.0.1:80""#),
        ("10.0.0.256:80", "an IPv4 address has four numbers, 0 to 255"),
        ("a@10.0.0.1", r#"write "a:PORT""#),
        ("a:80@0.0.0.0", "for this machine write 127.0.0.1"),
        ("a:80@fe80::1", r#"add the interface, as in "[fe80::1%eth0]""#),
        ("a:80@2001:db8::1%lo", r#"write "2001:db8::1""#),
        ("a:80@10.0.0.1%lo", r#"write "10.0.0.1""#),
        ("[2001:db8::1%lo]:80", r#"write "[2001:db8::1]:80""#),
        (
            "10.0.0.1:80@10.0.0.2",
            r#"write the address alone, or "HOST:PORT@ADDRESS" with a host name"#,
        ),
    ] {
        assert_eq!(server(text).unwrap_err().1, hint, "{text}");
    }
    assert!(ip("0.0.0.0").is_err() && ip("::%lo").is_err() && ip("127.0.0.1").is_ok());
    assert_eq!(ip("2001:db8::1%lo").unwrap_err().1, r#"write "2001:db8::1""#);
    assert_eq!(network("10.0.0.1/8").unwrap_err().1, r#"write "10.0.0.0/8""#);
    assert_eq!(network("::ffff:10.0.0.0/104").unwrap_err().1, r#"write "10.0.0.0/8""#);
    assert!(network("10.0.0.0/33").is_err());
}

/// Lists of servers come from files and over the network, with texts of any length. No text may overflow the stack.
#[test]
fn a_long_text_of_at_signs_is_an_error() {
    let text = format!("a:1{}", "@::".repeat(1_000_000));
    let (message, _) = server(&text).unwrap_err();
    assert!(message.ends_with("has no host name"));
}
