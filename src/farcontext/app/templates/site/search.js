// All words must stand in a section. One in its title counts more than one in its text.
const form = document.getElementById("search");
const most = 40;

function found(query) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const scored = window.searchIndex.map((row) => {
    const title = (row.h || row.p).toLowerCase();
    const page = row.p.toLowerCase();
    const text = row.t.toLowerCase();
    let score = 0;
    for (const word of words) {
      if (title.includes(word)) score += 10;
      else if (page.includes(word)) score += 1;
      else if (!text.includes(word)) return { row, score: 0 };
      score += Math.min(text.split(word).length - 1, 5);
    }
    return { row, score };
  });
  return scored.filter((x) => x.score).sort((a, b) => b.score - a.score).map((x) => x.row);
}

function excerpt(text, query) {
  const word = query.toLowerCase().split(/\s+/).find((x) => text.toLowerCase().includes(x)) ?? "";
  const at = Math.max(0, text.toLowerCase().indexOf(word));
  const from = Math.max(0, at - 80);
  const piece = document.createElement("p");
  const mark = document.createElement("mark");
  mark.textContent = text.slice(at, at + word.length);
  piece.append(from ? "… " : "", text.slice(from, at), mark, text.slice(at + word.length, at + 160));
  return piece;
}

function show() {
  const query = form.q.value.trim();
  const rows = found(query);
  const items = rows.slice(0, most).map((row) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = row.u;
    link.textContent = row.h ? `${row.p} › ${row.h}` : row.p;
    item.append(link, excerpt(row.t, query));
    return item;
  });
  document.getElementById("results").replaceChildren(...items);
  const more = rows.length > most ? `, the first ${most} shown` : "";
  document.getElementById("count").textContent = query ? `${rows.length} sections${more}` : "";
}

form.q.value = new URLSearchParams(location.search).get("q") ?? "";
form.addEventListener("input", show);
form.addEventListener("submit", (event) => event.preventDefault());
show();
