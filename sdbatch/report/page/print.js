// On paper: what the view shows, all of it, as a contact sheet. On the screen only what is seen of it is in the page, so
// that a browser would print that and leave the other pages empty.
//
//   Print, Ctrl+P --> figures --> every thumbnail is read --> window.print() --> put away
(function () {
  "use strict";
  var S = window.sdbatch, D = S.data, F = S.filter, T = S.tiles, R = S.review;
  var FIGURES_MAX = 2000;
  var P = S.paper = {};

  // Puts the sheet into the page, which shows it on paper alone; the promise ends once all its pictures are there.
  P.lay = function () {
    P.clear();
    var isOne = S.box.row !== null && S.box.row !== undefined;
    var rows = isOne ? [S.box.row] : S.part().order().slice(0, FIGURES_MAX);
    var loads = [];
    var sheet = S.el("section", { id: "paper", class: isOne ? "one" : "" }, [
      S.el("h1", { text: D.head.campaign }), S.el("p", { text: isOne ? "" : said(rows.length) }),
      S.el("div", { class: "figures" }, rows.map(function (row) { return figure(row, isOne, loads); })),
      isOne ? S.details(S.box.row) : null]);
    document.body.append(sheet);
    if (isOne) loads.push(D.load("sources", rows[0]).catch(function () { /* its place says so */ }));
    return Promise.all(loads);
  };

  P.clear = function () {
    var before = S.byId("paper");
    if (before) before.remove();
  };

  P.print = function () {
    return P.lay().then(function () { window.print(); });
  };

  function said(num) {
    var parts = [S.byId("summary").textContent];
    if (num < F.shown.length) parts.push("the first " + S.number(num) + " are on paper");
    if (S.view.q) parts.push("search: " + S.view.q);
    S.view.facets.forEach(function (values, name) {
      parts.push(S.label(name) + ": " + Array.from(values).map(S.valueLabel).join(", "));
    });
    return parts.join(" \u00b7 ");
  }

  function figure(row, isOne, loads) {
    var verdict = R.verdict(row);
    var inside = S.el("div", { class: "inside-figure" });
    if (D.has("thumbs", row)) loads.push(picture(row, inside, isOne));
    else inside.append(T.picture(row));
    var note = R.note(row);
    return S.el("figure", {}, [inside, S.el("figcaption", {}, [
      S.el("strong", { text: D.name(row) }), verdict ? S.el("span", { class: "said " + verdict, text: " " + T.sign(verdict) + " " + verdict }) : null,
      isOne ? null : S.el("div", T.words(row, true)),
      note ? S.el("div", { dir: "auto", text: "note: " + note }) : null])]);
  }

  // The file itself where one picture is printed and its folder is at hand; its thumbnail else.
  function picture(row, inside, isOne) {
    var image = S.el("img", { alt: "" });
    inside.append(image);
    var known = D.packed("thumbs", row);
    if (known !== null) image.src = D.dataUrl(known);
    return D.load("thumbs", row).then(function (item) {
      image.src = D.dataUrl(item);
      if (!isOne || D.isClip(row) || !D.asset(row)) return null;
      var whole = S.el("img", { alt: "", src: D.asset(row) });
      return whole.decode().then(function () { image.replaceWith(whole); }, function () { /* the thumbnail stays */ });
    }).then(function () { return image.decode(); }).catch(function () { image.alt = "(this picture cannot be read)"; });
  }

  document.addEventListener("keydown", function (event) {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey || event.key.toLowerCase() !== "p" || !S.isReady) return;
    event.preventDefault();
    P.print();
  });
  // From the browser's menu nothing can be waited for: pictures that were not read yet are left out, and the paper says so.
  window.addEventListener("beforeprint", function () {
    if (S.byId("paper") || !S.isReady) return;
    P.lay();
    var missing = document.querySelectorAll("#paper img:not([src])").length;
    if (missing) S.byId("paper").children[1].textContent += " \u00b7 " + S.number(missing) +
      " pictures were not read yet: the button Print of the page, or Ctrl+P, reads them first";
  });
  window.addEventListener("afterprint", P.clear);
})();
