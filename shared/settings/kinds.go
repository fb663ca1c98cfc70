package settings

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Limit bounds a number, a duration or a size; see [Min] and [Max].
type Limit[T cmp.Ordered] struct {
	bound T
	upper bool
}

// Min refuses values below v.
func Min[T cmp.Ordered](v T) Limit[T] { return Limit[T]{bound: v} }

// Max refuses values above v.
func Max[T cmp.Ordered](v T) Limit[T] { return Limit[T]{bound: v, upper: true} }

type stringValue string

func (v *stringValue) Set(s string) error { *v = stringValue(s); return nil }
func (v *stringValue) String() string     { return string(*v) }

type stringsValue []string

// Set refuses an empty value: it is an empty variable in a script, and a broker
// or target of that name helps nobody.
func (v *stringsValue) Set(s string) error {
	if s == "" {
		return errors.New("want a value")
	}
	*v = append(*v, s)
	return nil
}
func (v *stringsValue) String() string { return strings.Join(*v, " ") }

type wordValue struct {
	p     *string
	words []string
}

func (v *wordValue) Set(s string) error {
	if !slices.Contains(v.words, s) {
		return fmt.Errorf("want %s or %s", strings.Join(v.words[:len(v.words)-1], ", "), v.words[len(v.words)-1])
	}
	*v.p = s
	return nil
}
func (v *wordValue) String() string { return *v.p }

type boolValue bool

func (v *boolValue) Set(s string) error {
	switch strings.ToLower(s) {
	case "true", "yes", "on", "1":
		*v = true
	case "false", "no", "off", "0":
		*v = false
	default:
		return errors.New("want true or false")
	}
	return nil
}
func (v *boolValue) String() string   { return strconv.FormatBool(bool(*v)) }
func (v *boolValue) IsBoolFlag() bool { return true }

// A number is anything that is parsed, ordered and limited.
type number[T cmp.Ordered] struct {
	p      *T
	parse  func(string) (T, error)
	format func(T) string
	limits []Limit[T]
}

func (v *number[T]) Set(s string) error {
	n, err := v.parse(s)
	if err != nil {
		if r := v.rangeText(); r != "" {
			return fmt.Errorf("%w, %s", err, r)
		}
		return err
	}
	for _, l := range v.limits {
		if l.upper && n > l.bound || !l.upper && n < l.bound {
			return errors.New("want " + v.rangeText())
		}
	}
	*v.p = n
	return nil
}

func (v *number[T]) String() string { return v.format(*v.p) }

// rangeText says what the limits permit: "1 to 20", "at least 1", "" without.
func (v *number[T]) rangeText() string {
	var low, high string
	for _, l := range v.limits {
		if l.upper {
			high = v.format(l.bound)
		} else {
			low = v.format(l.bound)
		}
	}
	switch {
	case low == "" && high == "":
		return ""
	case high == "":
		return "at least " + low
	case low == "":
		return "at most " + high
	}
	return low + " to " + high
}

func parseInt(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errors.New("want a whole number")
	}
	return n, nil
}

const day = 24 * time.Hour

var errDuration = errors.New("want a duration such as 90s, 1m30s, 12h or 30d")

// parseDuration reads what time.ParseDuration reads, without a sign, after an
// optional whole number of days.
func parseDuration(s string) (time.Duration, error) {
	var days int64
	if n, rest, ok := strings.Cut(s, "d"); ok {
		var err error
		if days, err = strconv.ParseInt(n, 10, 64); err != nil || days > int64(math.MaxInt64/day) {
			return 0, errDuration
		}
		s = rest
		if s == "" {
			s = "0"
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || strings.HasPrefix(s, "-") || days < 0 || d > math.MaxInt64-time.Duration(days)*day {
		return 0, errDuration
	}
	return time.Duration(days)*day + d, nil
}

// formatDuration is the inverse, without the zeros of time.Duration's own.
func formatDuration(d time.Duration) string {
	if d >= day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// byteUnits are in the order in which formatBytes prefers them.
var byteUnits = []struct {
	name string
	size int64
}{
	{"TB", 1e12}, {"TiB", 1 << 40}, {"GB", 1e9}, {"GiB", 1 << 30}, {"MB", 1e6}, {"MiB", 1 << 20}, {"kB", 1e3}, {"KiB", 1 << 10}, {"B", 1},
}

var errBytes = errors.New("want a size such as 512MiB or 10GB")

func parseBytes(s string) (int64, error) {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit := s[len(digits):]
	n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
	if err != nil || n < 0 {
		return 0, errBytes
	}
	if unit == "" {
		return n, nil
	}
	for _, u := range byteUnits {
		if strings.EqualFold(unit, u.name) {
			if n > math.MaxInt64/u.size {
				return 0, errBytes
			}
			return n * u.size, nil
		}
	}
	return 0, errBytes
}

func formatBytes(n int64) string {
	for _, u := range byteUnits {
		if n >= u.size && n%u.size == 0 {
			return fmt.Sprintf("%d%s", n/u.size, u.name)
		}
	}
	return "0"
}
