package main

import (
	"fmt"

	"swarming/collector"
	"swarming/collector/config"
	"swarming/collector/export/elastic"
	"swarming/collector/journal"
)

// elasticsearch makes the exporter that the settings ask for.
func elasticsearch(cfg config.Config, j *journal.Journal) (collector.Exporter, error) {
	if len(cfg.Elasticsearch) == 0 {
		return nil, nil
	}
	e, err := elastic.New(elastic.Options{URLs: cfg.Elasticsearch, Index: cfg.ElasticsearchIndex, APIKeyFile: cfg.ElasticsearchAPIKey,
		CA: cfg.ElasticsearchCA, Source: j, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	return elasticExporter{e}, nil
}

// An elasticExporter tells of itself as the collector's status wants it.
type elasticExporter struct{ *elastic.Exporter }

func (e elasticExporter) Status() (streams []collector.ExportStatus, problems []string) {
	s := e.Stats()
	if s.TemplateProblem != "" {
		problems = append(problems, fmt.Sprintf("elasticsearch: %s", s.TemplateProblem))
	}
	return []collector.ExportStatus{streamStatus("results", s.Results), streamStatus("events", s.Events)}, problems
}

func streamStatus(stream string, s elastic.StreamStats) collector.ExportStatus {
	return collector.ExportStatus{To: "elasticsearch", Stream: stream, Exported: s.Exported, Duplicates: s.Duplicates, Rejected: s.Rejected,
		LastRejected: s.LastRejected, Lag: s.Lag.Seconds(), FailingSince: s.FailingSince, LastError: s.LastError, Hint: s.Hint, Failures: s.Failures}
}
