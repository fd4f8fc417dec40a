use super::*;

#[test]
fn names_are_lower_cased_and_lose_one_trailing_dot() {
    let name = ServerName::from_wire(b"Shop.Example.COM.").unwrap();
    assert_eq!(name.as_str(), "shop.example.com");
    assert_eq!(ServerName::from_wire(b"a..").unwrap_err(), NameError::LabelLength);
}

#[test]
fn only_configured_names_are_converted_to_punycode() {
    assert_eq!(
        ServerName::from_config("bücher.example").unwrap().as_str(),
        "xn--bcher-kva.example"
    );
    assert_eq!(
        ServerName::from_wire("bücher.example".as_bytes()),
        Err(NameError::Character)
    );
}

#[test]
fn names_and_labels_are_accepted_up_to_their_bounds() {
    let label = "a".repeat(63);
    assert!(ServerName::from_wire(label.as_bytes()).is_ok());
    assert_eq!(
        ServerName::from_wire("a".repeat(64).as_bytes()),
        Err(NameError::LabelLength)
    );
    let longest = format!("{label}.{label}.{label}.{}", "b".repeat(61));
    assert_eq!(longest.len(), 253);
    assert!(ServerName::from_wire(longest.as_bytes()).is_ok());
    assert!(ServerName::from_wire(format!("{longest}.").as_bytes()).is_ok());
    assert_eq!(
        ServerName::from_wire(format!("{longest}b").as_bytes()),
        Err(NameError::TooLong)
    );
}

#[test]
fn invalid_names_are_rejected() {
    for (text, error) in [
        ("", NameError::Empty),
        (".", NameError::Empty),
        ("10.0.0.1", NameError::IpLiteral),
        ("::1", NameError::Character),
        ("[::1]", NameError::Character),
        ("a b", NameError::Character),
        ("a\0b", NameError::Character),
        (".a", NameError::LabelLength),
        ("*.a", NameError::Character),
    ] {
        assert_eq!(ServerName::from_wire(text.as_bytes()), Err(error), "{text:?}");
    }
}

#[test]
fn unusual_names_are_valid() {
    for text in ["a", "_dmarc.a", "-a-.b_", "1.2.3", "xn--a.b"] {
        assert!(ServerName::from_wire(text.as_bytes()).is_ok(), "{text:?}");
    }
}

#[test]
fn parents_are_ordered_from_the_longest() {
    let name = Sni::from_wire(b"a.b.c").unwrap();
    assert_eq!(name.parents().collect::<Vec<_>>(), [b"b.c".as_slice(), b"c"]);
    assert_eq!(Sni::from_wire(b"a").unwrap().parents().count(), 0);
}

#[test]
fn only_empty_names_and_ip_literals_count_as_no_name() {
    for sent in [
        "",
        ".",
        "10.0.0.1",
        "10.0.0.1.",
        "::1",
        "[::1]",
        "2001:db8::7",
        "[10.0.0.1]",
    ] {
        assert_eq!(Sni::from_wire(sent.as_bytes()), None, "{sent:?}");
        assert!(Sni::from_config(sent).is_err(), "{sent:?}");
    }
    let long = format!("{}.example.com", "a".repeat(64));
    for sent in ["..", "x!z.example", "a b", "*.a", ".a", "10.0.0.1:443", "[::1", &long] {
        let invalid = Sni::Invalid(InvalidName::normalized(sent.as_bytes()));
        assert_eq!(Sni::from_wire(sent.as_bytes()), Some(invalid.clone()), "{sent:?}");
        assert_eq!(Sni::from_config(sent), Ok(invalid), "{sent:?}");
    }
    assert!(matches!(Sni::from_wire(b"\xff\0."), Some(Sni::Invalid(_))));
}

#[test]
fn an_invalid_name_is_normalized_and_its_end_is_kept() {
    assert_eq!(InvalidName::normalized(b"X!Z.Example.").0[..], *b"x!z.example");
    assert_eq!(InvalidName::normalized(b"x!z.example..").0[..], *b"x!z.example.");
    let suffix = "b.".repeat(126) + "c";
    assert_eq!(suffix.len(), SERVER_NAME_BYTES_MAX);
    let long = InvalidName::normalized(format!("{}!.{suffix}", "a".repeat(60_000)).as_bytes());
    assert_eq!(long.0.len(), SERVER_NAME_BYTES_MAX + 1);
    assert_eq!(Sni::Invalid(long).parents().next(), Some(suffix.as_bytes()));
}

proptest::proptest! {
    #[test]
    fn invalid_names_match_suffixes_like_valid_ones(text in "[a-cA-C0-9_-]{1,3}(\\.[a-cA-C0-9_-]{1,3}){0,4}\\.?") {
        let Some(Sni::Valid(name)) = Sni::from_wire(text.as_bytes()) else {
            return Ok(()); // an IP literal
        };
        let invalid = Sni::Invalid(InvalidName::normalized(text.as_bytes()));
        let valid = Sni::Valid(name);
        proptest::prop_assert!(invalid.parents().eq(valid.parents()));
    }
}

#[test]
fn patterns_are_parsed_and_ranked() {
    assert_eq!(NamePattern::from_config("*").unwrap(), NamePattern::Any);
    assert_eq!(
        NamePattern::from_config("*.Example.com").unwrap().to_string(),
        "*.example.com"
    );
    assert!(NamePattern::from_config("a.*.b").is_err());
    assert!(NamePattern::from_config("*.").is_err());
    assert!(Rank::Exact > Rank::Suffix { labels: 9 });
    assert!(Rank::Suffix { labels: 3 } > Rank::Suffix { labels: 2 });
    assert!(Rank::Suffix { labels: 1 } > Rank::Any && Rank::Any > Rank::Unconditional);
}

#[test]
fn an_exact_pattern_matches_one_name_and_a_suffix_pattern_the_names_below_it() {
    let rank = |pattern: &str, name: &str| {
        let name = Sni::from_config(name).unwrap();
        NamePattern::from_config(pattern).unwrap().rank(&name)
    };
    assert_eq!(rank("a.example", "A.example."), Some(Rank::Exact));
    assert_eq!(rank("a.example", "b.a.example"), None);
    for name in ["a.example", "b.a.example", "b!.example"] {
        assert_eq!(rank("*.example", name), Some(Rank::Suffix { labels: 1 }), "{name}");
        assert_eq!(rank("*", name), Some(Rank::Any), "{name}");
    }
    for name in ["example", "anexample", "example.a"] {
        assert_eq!(rank("*.example", name), None, "{name}");
    }
}
