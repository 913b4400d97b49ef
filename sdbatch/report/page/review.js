// Decisions: kept in this browser, downloaded as JSON lines, or saved by `sdbatch review` where it serves the page.
//
//   key A, R, P, U or a note --> decide() --> localStorage --> download(), or POST, which says when it did NOT save
//
// A decision is bound to (id, request key, n, sha256): a picture that is made anew is open again.
(function () {
  "use strict";
  var S = window.sdbatch, D = S.data;
  var R = S.review = { own: new Map(), isKept: true, failed: "" };
  var RETRY_MS = 10000;
  var POST_MAX = 500;
  var NAME_KEY = "sdbatch:reviewer";
  var endpoint = document.querySelector('meta[name="sdbatch-review"]').content;
  R.isServed = Boolean(endpoint);
  var isSending = false;

  function storageKey() { return "sdbatch:decisions:" + (D.head ? D.head.campaign : ""); }

  function keyOf(row) {
    return [D.text(row, "id"), D.text(row, "request_key"), D.n(row), D.text(row, "sha256")].join(" ");
  }

  R.start = function () {
    try {
      var kept = JSON.parse(localStorage.getItem(storageKey()) || "[]");
      if (Array.isArray(kept)) kept.forEach(function (entry) {
        if (Array.isArray(entry) && entry[1] && typeof entry[1] === "object") R.own.set(String(entry[0]), entry[1]);
      });
      S.byId("reviewer").value = localStorage.getItem(NAME_KEY) || "";
    } catch (error) { R.isKept = false; }
    S.byId("reviewer").addEventListener("change", function () {
      try { localStorage.setItem(NAME_KEY, S.byId("reviewer").value.trim()); } catch (error) { R.isKept = false; }
    });
    S.byId("download").addEventListener("click", R.download);
    window.addEventListener("beforeunload", function (event) {
      if (!R.isKept && unsaved().length) event.preventDefault();
    });
    show();
    if (endpoint) { send(); setInterval(send, RETRY_MS); }
  };

  function keep() {
    try {
      localStorage.setItem(storageKey(), JSON.stringify(Array.from(R.own.entries())));
    } catch (error) { R.isKept = false; }
  }

  // --- what is decided ----------------------------------------------------------------------------------------------

  // The verdict that counts for a row: what was decided here, unless the campaign has a later word.
  R.verdict = function (row) {
    var own = R.own.get(keyOf(row));
    var theirs = D.text(row, "reviewed_verdict");
    if (!own || Date.parse(D.text(row, "reviewed_at")) > Date.parse(own.at)) return theirs === "none" ? "" : theirs;
    return own.verdict === "none" ? "" : own.verdict;
  };

  R.note = function (row) {
    var own = R.own.get(keyOf(row));
    return own ? own.comment : D.text(row, "note");
  };

  R.canDecide = function (row) { return D.text(row, "status") === "ok" && D.text(row, "sha256") !== ""; };

  R.decide = function (row, verdict, comment) {
    if (!R.canDecide(row)) return false;
    R.own.set(keyOf(row), {
      format_version: 1,
      id: D.text(row, "id"),
      request_key: D.text(row, "request_key"),
      n: D.n(row),
      sha256: D.text(row, "sha256"),
      verdict: verdict === null ? R.verdict(row) || "none" : verdict,
      comment: comment === undefined ? R.note(row) : comment,
      by: S.byId("reviewer").value.trim(),
      at: new Date().toISOString(),
      saved: false
    });
    keep();
    R.mark(row);
    show();
    send();
    return true;
  };

  // The verdict is a column like any other, so that facets count it.
  R.mark = function (row) {
    var column = D.column("verdict", D.num);
    column.codes[row] = D.intern(column, R.verdict(row) || "open");
  };

  R.markAll = function () {
    var column = D.column("verdict", D.num);
    for (var row = 0; row < D.num; row += 1) {
      if (!R.canDecide(row)) { column.codes[row] = D.intern(column, ""); continue; }
      column.codes[row] = D.intern(column, R.verdict(row) || "open");
    }
  };

  // --- how it leaves the page ---------------------------------------------------------------------------------------

  function unsaved() { return Array.from(R.own.values()).filter(function (decision) { return !decision.saved; }); }

  R.lines = function (decisions) {
    return decisions.map(function (decision) {
      var line = Object.assign({}, decision);
      delete line.saved;
      if (!line.by) delete line.by;
      return JSON.stringify(line) + "\n";
    }).join("");
  };

  R.download = function () {
    var decisions = Array.from(R.own.values());
    var file = new Blob([R.lines(decisions)], { type: "application/jsonl" });
    var link = S.el("a", { href: URL.createObjectURL(file), download: "decisions-" + new Date().toISOString().slice(0, 10) + ".jsonl" });
    link.click();
    setTimeout(function () { URL.revokeObjectURL(link.href); }, 60000);
    decisions.forEach(function (decision) { decision.saved = true; });
    keep();
    show();
  };

  function send() {
    if (!endpoint || isSending) return;
    var decisions = unsaved().slice(0, POST_MAX);
    if (!decisions.length) return;
    isSending = true;
    var headers = { "Content-Type": "application/jsonl" };
    var token = new URL(endpoint, location.href).pathname.split("/")[1];
    headers["X-Sdbatch-Token"] = token;
    fetch(endpoint, { method: "POST", headers: headers, body: R.lines(decisions), redirect: "error" })
      .then(function (reply) {
        if (!reply.ok) return reply.text().then(function (text) { throw new Error(text.slice(0, 200) || "status " + reply.status); });
        return reply.json();
      })
      .then(function (reply) {
        if (reply.saved !== decisions.length) throw new Error(reply.saved + " of " + decisions.length + " were taken");
        decisions.forEach(function (decision) { decision.saved = true; });
        R.failed = "";
        keep();
      })
      .catch(function (error) { R.failed = String(error.message || error).replace(/^NOT saved: /, ""); })
      .then(function () {
        isSending = false;
        show();
        if (!R.failed && unsaved().length) send();
      });
  }

  function show() {
    var num = R.own.size, open = unsaved().length;
    var button = S.byId("download");
    button.hidden = !num || Boolean(endpoint && !R.failed);
    button.textContent = open
      ? "Download " + S.number(open) + " decision" + (open === 1 ? "" : "s")
      : "Download decisions again";
    var said = "";
    if (endpoint && R.failed) said = "NOT saved: " + S.number(open) + " decision" + (open === 1 ? "" : "s") + " (" + R.failed + ")" +
      (R.isKept ? ". They are kept in this browser and tried again; you can download them too." : ". Download them before you leave this page.");
    else if (!R.isKept && open) said = "This browser keeps nothing for this page: download your decisions before you leave it.";
    S.byId("unsaved").hidden = !said;
    S.byId("unsaved").textContent = said;
  }
})();
