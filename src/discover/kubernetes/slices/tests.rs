use serde_json::{Value, json};

use super::*;

/// An endpoint of a pod, as the controller writes it.
fn endpoint(address: &str, pod: &str, [ready, serving, terminating]: [bool; 3]) -> Value {
    json!({
        "addresses": [address],
        "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
        "nodeName": "node-1",
        "targetRef": { "kind": "Pod", "namespace": "default", "name": pod, "uid": "c0ffee" },
        "zone": "zone-a",
    })
}

const READY: [bool; 3] = [true, true, false];
const UNREADY: [bool; 3] = [false, false, false];
const SERVING_AND_ENDING: [bool; 3] = [false, true, true];
const ENDING: [bool; 3] = [false, false, true];
/// With `publishNotReadyAddresses`.
const READY_AND_ENDING: [bool; 3] = [true, true, true];

fn slice(name: &str, kind: &str, ports: &Value, endpoints: &[Value]) -> EndpointSlice {
    let slice = json!({
        "metadata": { "name": name, "namespace": "default", "resourceVersion": "7", "labels": {} },
        "addressType": kind,
        "endpoints": endpoints,
        "ports": ports,
    });
    serde_json::from_value(slice).unwrap()
}

fn pg() -> Value {
    json!([{ "name": "pg", "protocol": "TCP", "port": 5432 }])
}

fn slices_for_port(port: ServicePort, slices: impl IntoIterator<Item = EndpointSlice>) -> Slices {
    slices_in_zone(port, None, slices)
}

fn slices_in_zone(port: ServicePort, zone: Option<&str>, given: impl IntoIterator<Item = EndpointSlice>) -> Slices {
    let mut slices = Slices::new(port, zone.map(Into::into), MemberConfig::default());
    for slice in given {
        slices.put(slice).unwrap();
    }
    slices
}

/// The servers, as `NAME=ADDRESS`, with `drains` if the server is draining, and `far` if it is not in the first tier.
fn shown(slices: &Slices) -> Vec<String> {
    let servers = slices.list().unwrap().servers;
    let shown = servers.iter().map(|server| {
        let config = server.member_config;
        let drains = if config.is_draining { " drains" } else { "" };
        let tier = if config.priority > 0 { " far" } else { "" };
        format!("{}={}{drains}{tier}", server.label(), server.written)
    });
    shown.collect()
}

fn warning(slices: &Slices) -> String {
    slices.list().unwrap().warning.unwrap().to_string()
}

#[test]
fn the_conditions_decide_which_endpoints_get_sessions() {
    let endpoints = [
        endpoint("10.0.0.1", "ready", READY),
        endpoint("10.0.0.2", "unready", UNREADY),
        endpoint("10.0.0.3", "serving", SERVING_AND_ENDING),
        endpoint("10.0.0.4", "ending", ENDING),
        endpoint("10.0.0.5", "published", READY_AND_ENDING),
        json!({ "addresses": ["10.0.0.6"], "conditions": {} }),
        json!({ "addresses": ["10.0.0.7"], "conditions": { "ready": true, "terminating": true } }),
    ];
    let slices = slices_for_port(ServicePort::Only, [slice("a", "IPv4", &pg(), &endpoints)]);
    let expected = [
        "10.0.0.6:5432=10.0.0.6:5432",
        "10.0.0.7:5432=10.0.0.7:5432 drains",
        "published=10.0.0.5:5432 drains",
        "ready=10.0.0.1:5432",
        "serving=10.0.0.3:5432 drains",
    ];
    assert_eq!(shown(&slices), expected);
    assert_eq!(slices.list().unwrap().warning, None);
}

#[test]
fn terminating_endpoints_that_serve_get_sessions_if_none_is_ready() {
    let endpoints = [
        endpoint("10.0.0.2", "unready", UNREADY),
        endpoint("10.0.0.3", "serving", SERVING_AND_ENDING),
        endpoint("10.0.0.4", "ending", ENDING),
    ];
    let slices = slices_for_port(ServicePort::Only, [slice("a", "IPv4", &pg(), &endpoints)]);
    assert_eq!(shown(&slices), ["serving=10.0.0.3:5432"]);
}

#[test]
fn a_pod_with_two_addresses_or_in_two_slices_is_one_server() {
    let mut slices = slices_for_port(
        ServicePort::Name("pg".into()),
        [
            slice(
                "v6",
                "IPv6",
                &pg(),
                &[endpoint("fd00::1", "a", READY), endpoint("fd00::2", "b", READY)],
            ),
            slice("v4", "IPv4", &pg(), &[endpoint("10.0.0.1", "a", SERVING_AND_ENDING)]),
            slice(
                "v4-old",
                "IPv4",
                &pg(),
                &[endpoint("10.0.0.3", "c", SERVING_AND_ENDING)],
            ),
            slice("v4-new", "IPv4", &pg(), &[endpoint("10.0.0.3", "c", READY)]),
            slice(
                "by-hand",
                "IPv4",
                &pg(),
                &[json!({ "addresses": ["10.0.0.3"], "conditions": {} })],
            ),
        ],
    );
    assert_eq!(
        shown(&slices),
        ["a=10.0.0.1:5432 drains", "b=[fd00::2]:5432", "c=10.0.0.3:5432"]
    );
    slices.remove(slice("v4", "IPv4", &pg(), &[]));
    assert_eq!(shown(&slices)[0], "a=[fd00::1]:5432");
}

#[test]
fn a_port_is_found_by_name_by_number_or_as_the_only_one() {
    let number = |number| ServicePort::Number(NonZeroU16::new(number).unwrap());
    let name = |name: &str| ServicePort::Name(name.into());
    let two_tcp = json!([
        { "name": "pg", "port": 5432 },
        { "name": "http", "protocol": "TCP", "port": 8080 },
        { "name": "pg-udp", "protocol": "UDP", "port": 5433 },
    ]);
    let unnamed = json!([{ "name": "", "protocol": "TCP", "port": 5432 }]);
    let any = json!([{ "name": "any", "protocol": "TCP", "port": null }]);
    let known = "`pg` (5432), `http` (8080)";
    for (port, ports, found) in [
        (ServicePort::Only, &pg(), Ok(5432)),
        (ServicePort::Only, &unnamed, Ok(5432)),
        (
            ServicePort::Only,
            &two_tcp,
            Err(format!("set `port` to one of its ports: {known}")),
        ),
        (name("http"), &two_tcp, Ok(8080)),
        (
            name("pg-udp"),
            &two_tcp,
            Err(format!("it has no TCP port `pg-udp`, but {known}")),
        ),
        (number(8080), &two_tcp, Ok(8080)),
        (
            number(5433),
            &two_tcp,
            Err(format!("it has no TCP port 5433, but {known}")),
        ),
        (number(5433), &any, Ok(5433)),
        (number(5433), &json!(null), Ok(5433)),
        (
            name("any"),
            &any,
            Err("it has no TCP port `any`, but `any` (any number)".to_owned()),
        ),
        (
            name("pg"),
            &json!([]),
            Err("it has no TCP port: set `port` to a number".to_owned()),
        ),
    ] {
        let endpoints = [endpoint("10.0.0.1", "a", READY)];
        let slices = slices_for_port(port, [slice("orders-x", "IPv4", ports, &endpoints)]);
        match found {
            Ok(number) => assert_eq!(shown(&slices), [format!("a=10.0.0.1:{number}")]),
            Err(problem) => {
                assert!(shown(&slices).is_empty());
                assert_eq!(warning(&slices), format!("EndpointSlice `orders-x`: {problem}"));
            }
        }
    }
}

#[test]
fn endpoints_with_a_hint_for_this_zone_are_the_first_tier() {
    let hinted = |pod: &str, address: &str, zones: &[&str], conditions| {
        let mut endpoint = endpoint(address, pod, conditions);
        let zones: Vec<_> = zones.iter().map(|zone| json!({ "name": zone })).collect();
        endpoint["hints"] = json!({ "forZones": zones });
        endpoint
    };
    let ours = hinted("ours", "10.0.0.1", &["zone-a", "zone-c"], READY);
    let other = hinted("other", "10.0.0.2", &["zone-b"], READY);
    let ending = endpoint("10.0.0.3", "ending", SERVING_AND_ENDING);
    let unhinted = endpoint("10.0.0.4", "unhinted", READY);
    let shown_in = |zone, endpoints: &[&Value]| {
        let endpoints: Vec<_> = endpoints.iter().copied().cloned().collect();
        shown(&slices_in_zone(
            ServicePort::Only,
            zone,
            [slice("a", "IPv4", &pg(), &endpoints)],
        ))
    };
    assert_eq!(
        shown_in(Some("zone-a"), &[&ours, &other, &ending]),
        [
            "ending=10.0.0.3:5432 drains far",
            "other=10.0.0.2:5432 far",
            "ours=10.0.0.1:5432"
        ]
    );
    let all_alike = ["other=10.0.0.2:5432", "ours=10.0.0.1:5432"];
    for zone in [None, Some("zone-d")] {
        assert_eq!(shown_in(zone, &[&ours, &other]), all_alike);
    }
    // As long as one ready endpoint has no hints, those of the other endpoints may be out of date, and are ignored.
    // (`ending` has none either, but is not ready.)
    assert_eq!(
        shown_in(Some("zone-a"), &[&ours, &unhinted]),
        ["ours=10.0.0.1:5432", "unhinted=10.0.0.4:5432"]
    );
}

#[test]
fn unusable_endpoints_are_left_out_and_reported() {
    let mut slices = slices_for_port(ServicePort::Only, []);
    assert!(warning(&slices).starts_with("it has no EndpointSlice"));
    slices.put(slice("a", "IPv4", &pg(), &[])).unwrap();
    assert!(warning(&slices).starts_with("it has no endpoint"));
    slices
        .put(slice("a", "IPv4", &pg(), &[endpoint("10.0.0.1", "a", UNREADY)]))
        .unwrap();
    assert_eq!(warning(&slices), "none of its 1 endpoints is ready");
    slices
        .put(slice("a", "FQDN", &pg(), &[json!({ "addresses": ["db.test"] })]))
        .unwrap();
    assert_eq!(
        warning(&slices),
        "EndpointSlice `a`: its addresses are `FQDN`, neither IPv4 nor IPv6"
    );
    slices
        .put(slice("a", "IPv4", &pg(), &[endpoint("224.0.0.1", "a", READY)]))
        .unwrap();
    assert!(warning(&slices).contains("224.0.0.1"), "{}", warning(&slices));
    let endpoints = [json!({ "addresses": null }), endpoint("10.0.0.1", "a", READY)];
    slices.put(slice("b", "IPv4", &pg(), &endpoints)).unwrap();
    slices
        .put(slice("c", "IPv4", &json!([]), &[endpoint("10.0.0.2", "b", READY)]))
        .unwrap();
    assert_eq!(shown(&slices), ["a=10.0.0.1:5432"]);
    assert!(warning(&slices).ends_with("; 2 more have problems"));
}

#[test]
fn an_endpoint_without_a_usable_pod_name_is_named_by_its_address() {
    let endpoints = [
        endpoint("10.0.0.1", &"a".repeat(200), READY),
        json!({ "addresses": ["10.0.0.2"], "targetRef": { "kind": "Node", "name": "node-1" } }),
    ];
    let slices = slices_for_port(ServicePort::Only, [slice("a", "IPv4", &pg(), &endpoints)]);
    assert_eq!(
        shown(&slices),
        ["10.0.0.1:5432=10.0.0.1:5432", "10.0.0.2:5432=10.0.0.2:5432"]
    );
}

/// A slice of 1000 endpoints. `number` is part of its name, and of the names and addresses of its pods.
fn full(kind: &str, number: usize) -> EndpointSlice {
    let endpoints = (0..1000).map(|index| {
        let address = match kind {
            "IPv4" => format!("10.{number}.{}.{}", index / 256, index % 256),
            _ => format!("fd00:{number}::{index}"),
        };
        endpoint(&address, &format!("pod-{number}-{index}"), READY)
    });
    slice(&format!("{kind}-{number}"), kind, &pg(), &endpoints.collect::<Vec<_>>())
}

#[test]
fn a_service_may_have_ten_thousand_pods_of_both_families_but_no_more() {
    let both = (0..10).flat_map(|number| [full("IPv4", number), full("IPv6", number)]);
    let mut slices = slices_for_port(ServicePort::Only, both);
    assert_eq!(slices.list().unwrap().servers.len(), LISTED_MAX);
    slices.remove(full("IPv6", 0));
    slices.put(full("IPv4", 10)).unwrap();
    let error = slices.list().unwrap_err();
    assert_eq!(&*error, "the Service has more than 10000 endpoints");
    assert!(slices.put(full("IPv4", 11)).is_err());
}
