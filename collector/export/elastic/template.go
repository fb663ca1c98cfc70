package elastic

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
)

// templateVersion rises whenever a template's content changes. A cluster's
// template of the same or a higher version is left alone: by an older collector,
// and so is one that an administrator has edited.
const templateVersion = 1

// templatePriority is above the templates that Elasticsearch brings itself (100)
// and those of Logstash (200), and unlikely to be anybody's: two templates of one
// priority may not cover the same indices.
const templatePriority = 240

// A Template is an index template of the exporter.
type Template struct {
	Name string // of PUT /_index_template/NAME
	Body []byte // JSON
}

// Templates returns the index templates for indices with a prefix, for those
// who put them by hand. policy names a lifecycle policy of the cluster, or is
// empty.
func Templates(prefix, policy string) ([]Template, error) {
	n, err := newNames(prefix)
	if err != nil {
		return nil, err
	}
	return n.templates(policy), nil
}

func (n names) templates(policy string) []Template {
	return []Template{
		n.template(n.prefix+"-ping", n.resultPattern, policy, "results of swarming: one document for each round of pings", resultFields()),
		n.template(n.prefix+"-event", n.eventPattern, policy, "events of swarming: agents that appear and leave", eventFields()),
	}
}

type object = map[string]any

func (n names) template(name, pattern, policy, about string, fields object) Template {
	settings := object{"number_of_shards": 1, "auto_expand_replicas": "0-1"}
	if policy != "" {
		settings["lifecycle"] = object{"name": policy}
	}
	body, err := json.MarshalIndent(object{
		"index_patterns": []string{pattern},
		"priority":       templatePriority,
		"version":        templateVersion,
		"_meta":          object{"description": about, "managed_by": "swarming-collector", "version": templateVersion},
		"template": object{
			"settings": object{"index": settings},
			"mappings": object{"dynamic": false, "properties": fields},
		},
	}, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("elastic: encode template: %v", err)) // of constants: cannot fail
	}
	return Template{Name: name, Body: body}
}

func field(kind string) object { return object{"type": kind} }

// keyword fields hold names and words of at most 64 bytes.
func keyword() object { return object{"type": "keyword", "ignore_above": 256} }

func commonFields() object {
	return object{
		"@timestamp": field("date"),
		"@version":   keyword(),
		"message":    object{"type": "text", "norms": false},
		"received":   field("date"),
		"agent":      keyword(),
		"boot":       keyword(),
		"broker":     keyword(),
		"labels":     field("flattened"),
	}
}

func resultFields() object {
	f := commonFields()
	for _, name := range []string{"target", "probe", "cause", "stamp"} {
		f[name] = keyword()
	}
	for _, name := range []string{"min", "avg", "max", "stddev", "loss", "rtts"} {
		f[name] = field("float")
	}
	for _, name := range []string{"sent", "recv", "late", "family"} {
		f[name] = field("short")
	}
	f["seq"] = field("long")
	f["addr"], f["from"] = field("ip"), field("ip")
	return f
}

func eventFields() object {
	f := commonFields()
	f["kind"], f["reason"] = keyword(), keyword()
	f["conn"] = field("long")
	f["detail"] = object{"type": "object", "enabled": false} // kept, not indexed
	return f
}

// prepared knows whether the templates are in place. Without them Elasticsearch
// would guess the types, so nothing is exported before.
type prepared struct {
	ask sync.Mutex // held while asking, so that one asks for all

	mu      sync.Mutex
	done    bool
	problem string
	warned  bool
}

func (p *prepared) isDone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

func (p *prepared) problemText() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.problem
}

// forgetPrepared makes sure that the templates are looked at again.
func (e *Exporter) forgetPrepared() {
	e.prepare.mu.Lock()
	defer e.prepare.mu.Unlock()
	e.prepare.done = false
}

// prepareEarly puts the templates before there is anything to export. Its
// failures are those of the results, too.
func (e *Exporter) prepareEarly(ctx context.Context) {
	_ = e.results.retry(ctx, func() error { return e.prepareOnce(ctx) })
}

// prepareOnce puts the templates unless that has been done.
func (e *Exporter) prepareOnce(ctx context.Context) error {
	if e.prepare.isDone() {
		return nil
	}
	e.prepare.ask.Lock()
	defer e.prepare.ask.Unlock()
	if e.prepare.isDone() {
		return nil
	}
	err := e.putTemplates(ctx)
	if err != nil && statusOf(err) != http.StatusForbidden {
		return err
	}
	e.notePrepared(err)
	return nil
}

// notePrepared ends the preparation, in peace or, for want of privileges,
// without knowing whether somebody else has put the templates.
func (e *Exporter) notePrepared(forbidden error) {
	p := &e.prepare
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.problem = true, ""
	if forbidden == nil {
		return
	}
	p.problem = fmt.Sprintf("%v; run the collector once with an API key or a user that has the cluster privileges manage_index_templates and manage_ilm, or put the templates %s-ping and %s-event by hand",
		forbidden, e.names.prefix, e.names.prefix)
	if !p.warned {
		p.warned = true
		e.opts.Log.Warn("elasticsearch export goes on without having put its index templates; if nobody else has, types are guessed", "err", p.problem)
	}
}

func (e *Exporter) putTemplates(ctx context.Context) error {
	policy, err := e.lifecycle(ctx)
	if err != nil {
		return fmt.Errorf("put lifecycle policy: %w", err)
	}
	for _, t := range e.names.templates(policy) {
		if err := e.putTemplate(ctx, t); err != nil {
			return fmt.Errorf("put index template %s: %w", t.Name, err)
		}
	}
	return nil
}

func (e *Exporter) putTemplate(ctx context.Context, t Template) error {
	path := "/_index_template/" + t.Name
	answer, err := e.client.do(ctx, http.MethodGet, path+"?filter_path=index_templates.index_template.version", "", nil)
	if err != nil && statusOf(err) != http.StatusNotFound {
		return err
	}
	if err == nil {
		var there struct {
			Templates []struct {
				Template struct{ Version int64 } `json:"index_template"`
			} `json:"index_templates"`
		}
		if err := json.Unmarshal(answer, &there); err != nil {
			return fmt.Errorf("read answer %.100q: %w", answer, err)
		}
		if len(there.Templates) > 0 && there.Templates[0].Template.Version >= templateVersion {
			return nil
		}
	}
	_, err = e.client.do(ctx, http.MethodPut, path, "application/json", t.Body)
	return err
}

// lifecycle returns the name of the policy that the indices follow, or nothing
// where the cluster has no lifecycles or does not let us near them. It makes the
// policy if there is none: one that deletes nothing, for an administrator to edit.
func (e *Exporter) lifecycle(ctx context.Context) (string, error) {
	path := "/_ilm/policy/" + e.names.prefix
	_, err := e.client.do(ctx, http.MethodGet, path, "", nil)
	if err == nil {
		return e.names.prefix, nil
	}
	s, ok := errors.AsType[*statusError](err)
	switch {
	case !ok || s.Status == http.StatusUnauthorized || s.Status == http.StatusTooManyRequests || s.Status >= 500:
		return "", err
	case s.Status != http.StatusNotFound || s.Cause.Type != "resource_not_found_exception":
		return "", nil // forbidden, or no such thing here
	}
	const policy = `{"policy":{"_meta":{"managed_by":"swarming-collector"},"phases":{"hot":{"min_age":"0ms","actions":{"set_priority":{"priority":50}}}}}}`
	_, err = e.client.do(ctx, http.MethodPut, path, "application/json", []byte(policy))
	if statusOf(err) == http.StatusForbidden {
		return "", nil
	}
	return e.names.prefix, err
}
