package layering

import (
	"slices"
	"strings"
	"testing"
)

// outside says which packages alone may import certain modules. franz-go's client is there to measure the Kafka listener with, and is no part of a broker.
var outside = map[string][]string{
	"github.com/twmb/franz-go/pkg/kgo": {"cmd/flotilla"},
}

func TestOutsideModulesAreForFew(t *testing.T) {
	for _, p := range listPackages(t) {
		for _, imported := range p.Imports {
			may, ruled := outside[imported]
			from := strings.TrimPrefix(p.ImportPath, module+"/")
			if ruled && !slices.Contains(may, from) {
				t.Errorf("%s imports %s, which is for %v", from, imported, may)
			}
		}
	}
}
