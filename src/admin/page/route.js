// The form "Where would it go?": shows where a connection would go now, by the running process. (`acequia route`
// answers by the configuration file.)

import { byId, element, facts, show } from "./dom.js";
import { known } from "./state.js";
import { get } from "./source.js";

export function setUpRoute() {
  byId("route-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = new FormData(event.target);
    const query = new URLSearchParams();
    for (const name of ["listener", "sni", "from", "peer", "database", "user"]) {
      if (form.get(name)?.trim()) query.set(name, form.get(name).trim());
    }
    for (const protocol of form.get("alpn").split(/[\s,]+/).filter(Boolean)) query.append("alpn", protocol);
    try {
      show(byId("route-answer"), answer(await get(`route?${query}`)));
    } catch (error) {
      show(byId("route-answer"), element("p", { class: "notice bad" }, error.message));
    }
  });
}

/** Keeps the list of listeners current. */
export function showRouteForm() {
  const names = (known.state?.listeners ?? []).map((listener) => listener.name);
  const select = byId("route-listener");
  if (names.join("\n") === select.dataset.names) return;
  const chosen = select.value;
  select.dataset.names = names.join("\n");
  show(select, names.map((name) => element("option", { value: name, "data-key": name }, name)));
  if (names.includes(chosen)) select.value = chosen;
}

/** How the listener treats the balancer in front of it. */
const PEERS = {
  trusted: "is trusted to name the client",
  client: "counts as the client itself: the listener does not trust it to name a client",
  refused: "is refused: the listener does not trust it to name a client",
};

function verdictOfGuard({ guard, refuses, report_only }) {
  if (!refuses) return guard;
  return report_only ? `${guard} would refuse it (${refuses}), but only reports` : `${guard} refuses it (${refuses})`;
}

function answer(found) {
  const outcome = found.redirect
    ? `It is redirected to ${found.redirect}.`
    : found.pool
      ? `It goes to pool ${found.pool}${found.route ? ` by route ${found.route}` : ", as no route matches"}.`
      : "It is refused.";
  const guards = found.guards.map(verdictOfGuard).join(", ");
  const verdicts = found.routes.map(({ route, verdict, why }) =>
    element("li", {}, element("strong", {}, route), ` is ${verdict}${why.length > 0 ? `: ${why.join("; ")}` : ""}`));
  return [
    element("p", {}, element("strong", {}, outcome)),
    facts([
      ["TLS", found.tls],
      ["Certificate", found.certificate],
      ["Fallback of", found.fallback_from],
      ["Balancer in front", PEERS[found.peer]],
      ["Guards", guards],
      ["Servers", found.servers.join(", ")],
      ["Full servers", found.full.join(", ")],
    ]),
    verdicts.length > 0 ? element("ul", { class: "verdicts" }, verdicts) : null,
  ];
}
