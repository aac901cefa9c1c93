# Reads the public headers, then the demangled dynamic symbols of libweft.so; prints each symbol that is neither marked
# WEFT_API nor the standard library's, and fails when there is one.   awk -f symbols.awk HEADER… SYMBOLS
FILENAME == ARGV[ARGC - 1] { check($0); next }
/WEFT_API/ { marked = marked " " $0 " " }

function public(name) { return marked ~ ("[^A-Za-z0-9_]" name "[^A-Za-z0-9_]") }

function check(symbol,    rest, bad) {
  ++symbols
  bad = symbol !~ /weft::|std::/ || symbol ~ /(fmt|nlohmann|hwy|tbb|dnnl|anonymous namespace)/
  rest = symbol
  gsub(/weft::detail::/, "weft::", rest)
  while (!bad && match(rest, /weft::[A-Za-z0-9_]*/)) {
    bad = !public(substr(rest, RSTART + 6, RLENGTH - 6))
    rest = substr(rest, RSTART + RLENGTH)
  }
  if (bad) { print "not public, but exported: " symbol; ++violations }
}

END {
  if (!symbols) print "no symbols at all"
  exit !symbols || violations > 0
}
