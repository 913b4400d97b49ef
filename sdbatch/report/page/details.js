// What is known of one asset, beside its picture in the light box: values, source, older versions, recipe, command.
(function () {
  "use strict";
  var S = window.sdbatch, D = S.data, F = S.filter;

  S.copyButton = function (label, text) {
    var button = S.el("button", { type: "button", class: "copy", text: label });
    button.addEventListener("click", function () {
      copy(text()).then(function () { button.textContent = "Copied"; }, function () { button.textContent = "Not copied"; })
        .then(function () { setTimeout(function () { button.textContent = label; }, 1500); });
    });
    return button;
  };

  function copy(text) {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    return Promise.reject(new Error("no clipboard"));
  }

  // A word of a command line, whatever stands in it.
  function quoted(text) {
    return /^[A-Za-z0-9_@%+=:,./-]+$/.test(text) ? text : "'" + text.replace(/'/g, "'\\''") + "'";
  }

  S.command = function (row) {
    var n = D.n(row);
    return "sdbatch reproduce " + quoted(D.head.campaign) + " " + quoted(D.text(row, "id")) + (n > 0 ? " --n " + n : "");
  };

  function value(list, name, text) {
    if (text === "") return;
    list.append(S.el("dt", { text: S.label(name) }), S.el("dd", { text: text }));
  }

  function values(row) {
    var list = S.el("dl");
    value(list, "id", D.name(row));
    if (D.text(row, "status") !== "ok") {
      value(list, "status", D.text(row, "status"));
      value(list, "error", [D.text(row, "error_type"), D.text(row, "error_message")].filter(Boolean).join(": "));
    }
    F.own.forEach(function (name) { value(list, name, D.text(row, name)); });
    ["prompt", "negative_prompt", "task", "model", "size", "length"].concat(F.settings).forEach(function (name) {
      value(list, name, D.text(row, name));
    });
    value(list, "seed", D.text(row, "seed"));
    if (D.text(row, "truncated") === "yes") value(list, "prompt", "its end was left out: it is longer than the text encoder reads");
    D.text(row, "made_from").split("\n").forEach(function (url) { value(list, "made from", url); });
    value(list, "copied from", D.text(row, "copied_from"));
    value(list, "reviewed by", D.text(row, "reviewed_by"));
    value(list, "run", D.text(row, "run"));
    return list;
  }

  function older(row) {
    var links = D.text(row, "older").split("\n").map(D.link).filter(Boolean);
    var before = D.before.get(row);
    if (before !== undefined && D.asset(before)) links.unshift(D.asset(before));
    if (!links.length) return null;
    return S.el("section", { "aria-label": "Older versions" }, [S.el("h2", { text: "Older versions" }),
      S.el("div", { class: "older" }, links.slice(0, 24).map(function (link) {
        var name = link.split("/").pop();
        var inside = /\.(mp4|webm)$/.test(link) ? S.el("span", { text: name })
          : S.el("img", { src: link, alt: name, loading: "lazy" });
        return S.el("a", { href: link, target: "_blank", rel: "noopener", title: name }, [inside]);
      }))]);
  }

  function recipe(row) {
    if (!D.has("recipes", row)) return null;
    var text = S.el("pre", { tabindex: "0" });
    var shown = "";
    var details = S.el("details", { ontoggle: function () {
      if (!details.open || shown) return;
      D.load("recipes", row).then(function (item) {
        shown = JSON.stringify(JSON.parse(item), null, 1);
        text.textContent = shown;
      }).catch(function () { text.textContent = "the recipe is not in the gallery any more; reload the page"; });
    } }, [S.el("summary", { text: "Recipe" }), text, S.copyButton("Copy the recipe", function () { return shown; })]);
    return details;
  }

  S.details = function (row) {
    var command = S.command(row);
    var source = D.has("sources", row) ? S.el("img", { class: "small-source", alt: "the source, as the model saw it" }) : null;
    var box = S.el("div", {}, [
      source ? S.el("section", { "aria-label": "Source" }, [S.el("h2", { text: "Source" }), source]) : null,
      values(row), older(row), recipe(row),
      S.el("section", { "aria-label": "Make it again" }, [S.el("h2", { text: "Make it again" }), S.el("code", { text: command }),
        S.copyButton("Copy the command", function () { return command; })])]);
    if (source) setTimeout(function () { D.show(source, "sources", row); }, 0);
    return box;
  };
})();
