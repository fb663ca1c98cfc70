package settings

import (
	"io"
	"log/slog"
)

// LogOptions are the settings of a program's log.
type LogOptions struct {
	level  string
	format string
}

// Log declares --log-level and --log-format.
func (s *Set) Log() *LogOptions {
	o := new(LogOptions)
	s.Word(&o.level, "log-level", "info", "least severe lines to log", "debug", "info", "warn", "error")
	s.Word(&o.format, "log-format", "text", "shape of log lines on standard error", "text", "json")
	return o
}

// Logger returns a logger that writes to w as the settings say. It is for use
// after [Set.Parse].
func (o *LogOptions) Logger(w io.Writer) *slog.Logger {
	level := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}[o.level]
	options := &slog.HandlerOptions{Level: level}
	if o.format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}
