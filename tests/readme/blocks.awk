# Prints the fenced blocks of one language of a Markdown file: the first, or every one with -v all=1. Fails when there is
# none.   awk -v language=cpp -f blocks.awk README.md
/^```/ && inside { inside = 0; if (!all) exit; next }
$0 == "```" language { inside = 1; ++blocks; next }
inside
END { exit blocks == 0 }
