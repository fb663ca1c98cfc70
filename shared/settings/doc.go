// Package settings reads a program's settings from its command line, its
// environment and a file.
//
// Every setting is a flag (--max-pps 20), an environment variable
// (SWARMING_AGENT_MAX_PPS=20) and a line in the file named by --config
// (max-pps 20). Flags beat the environment, the environment beats the file. Of a
// setting that takes several values, the strongest source that names it replaces
// the weaker ones: nothing is merged. An unknown name on the command line or in
// the file is an error; in the environment, which others may have set, it is a
// warning.
//
// The file has one "name value" a line. Blank lines and what follows a # at the
// start of a line or after white space are ignored. The value is everything
// between the name and the end of the line, without quotes.
//
// It is a layer of its own, because those at hand (package flag, ff v3) stop at
// the first argument that is not a flag, add the values of a weaker source to
// those of a stronger one, and name neither file nor line in an error. What it
// takes from package flag is the [flag.Value] interface.
//
// A Set is for one goroutine at a time. The variables it was given are written
// by [Set.Parse] only.
package settings
