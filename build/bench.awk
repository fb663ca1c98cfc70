# Makes one table of what go test -bench prints for several packages, and ends
# with 1 when a package failed or nothing was measured.
/^pkg: / { package = $2; sub(/^swarming\//, "", package) }
/^Benchmark.*[ \t][0-9]/ {
	name = $1; sub(/^Benchmark/, "", name); sub(/-[0-9]+$/, "", name)
	if (!rows++) printf "%-62s %12s  %s\n", "benchmark", "times", "each"
	figures = ""
	for (i = 3; i < NF; i += 2) figures = figures sprintf("%12s %-10s", $i, $(i + 1))
	printf "%-62s %12s  %s\n", package " " name, $2, figures
	fflush()
}
/^(--- )?FAIL|^panic: / { print; failed = 1 }
END { exit failed || !rows }
