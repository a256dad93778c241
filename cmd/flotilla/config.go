package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// envPrefix begins every variable that the program reads.
const envPrefix = "FLOTILLA_"

const envConfig = envPrefix + "CONFIG"

// annotationCLIOnly marks flags that neither file nor environment may set, because forgetting that they are set would destroy
// something.
const annotationCLIOnly = "flotilla_cli_only"

// option is a flag with its other two names.
type option struct {
	key  string // in a file, such as topic.create.partitions
	env  string // FLOTILLA_TOPIC_CREATE_PARTITIONS
	flag *pflag.Flag
}

// cliOnly marks flags of cmd.
func cliOnly(cmd *cobra.Command, names ...string) {
	for _, name := range names {
		f := cmd.Flags().Lookup(name)
		if f.Annotations == nil {
			f.Annotations = map[string][]string{}
		}
		f.Annotations[annotationCLIOnly] = []string{"true"}
	}
}

// optionsOf lists the options that cmd itself defines.
func optionsOf(cmd *cobra.Command) []option {
	path := strings.Fields(cmd.CommandPath())[1:]
	var opts []option
	add := func(f *pflag.Flag) {
		if f.Name == "help" || f.Name == "config" || f.Annotations[annotationCLIOnly] != nil {
			return
		}
		key := strings.Join(append(slices.Clone(path), f.Name), ".")
		opts = append(opts, option{key: key, env: envName(key), flag: f})
	}
	cmd.LocalNonPersistentFlags().VisitAll(add)
	cmd.PersistentFlags().VisitAll(add)
	return opts
}

func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// allOptions lists the options of cmd and everything below it.
func allOptions(cmd *cobra.Command) []option {
	if isCompletion(cmd) || cmd.Name() == "help" {
		return nil
	}
	opts := optionsOf(cmd)
	for _, sub := range cmd.Commands() {
		opts = append(opts, allOptions(sub)...)
	}
	return opts
}

// environ returns the FLOTILLA_* variables that are set and not empty.
func environ() map[string]string {
	vars := map[string]string{}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, envPrefix) && value != "" {
			vars[name] = value
		}
	}
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		dropServiceLinks(vars)
	}
	return vars
}

// serviceLink matches what Kubernetes puts into every pod's environment when a service is called flotilla or flotilla-something.
var serviceLink = regexp.MustCompile(`^FLOTILLA(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

func dropServiceLinks(vars map[string]string) {
	for name := range vars {
		if serviceLink.MatchString(name) {
			delete(vars, name)
		}
	}
}

// applySettings gives the flags of cmd that were not on the command line their values from env, else from the file. Variables and keys that
// belong to no command of the whole program are refused, whichever command runs.
func applySettings(cmd *cobra.Command, env map[string]string) error {
	all := allOptions(cmd.Root())
	file, err := readConfigFile(configPath(cmd, env), all)
	if err != nil {
		return err
	}
	if err := checkEnv(env, all); err != nil {
		return err
	}
	for _, opt := range effectiveOptions(cmd) {
		if opt.flag.Changed {
			continue
		}
		if err := applyOption(cmd, opt, env, file); err != nil {
			return err
		}
	}
	return nil
}

// effectiveOptions lists the options that cmd accepts: its own and those of the commands above it.
func effectiveOptions(cmd *cobra.Command) []option {
	var opts []option
	for c := cmd; c != nil; c = c.Parent() {
		for _, opt := range optionsOf(c) {
			if cmd.Flags().Lookup(opt.flag.Name) == opt.flag {
				opts = append(opts, opt)
			}
		}
	}
	return opts
}

func configPath(cmd *cobra.Command, env map[string]string) string {
	if f := cmd.Flags().Lookup("config"); f != nil && f.Value.String() != "" {
		return f.Value.String()
	}
	return env[envConfig]
}

func applyOption(cmd *cobra.Command, opt option, env map[string]string, file *viper.Viper) error {
	if value, ok := env[opt.env]; ok {
		if err := cmd.Flags().Set(opt.flag.Name, value); err != nil {
			return fmt.Errorf("variable %s: %w", opt.env, err)
		}
		return nil
	}
	if file == nil || !file.IsSet(opt.key) {
		return nil
	}
	if err := setFromFile(cmd, opt, file); err != nil {
		return fmt.Errorf("%s: %s: %w", file.ConfigFileUsed(), opt.key, err)
	}
	return nil
}

// setFromFile sets a flag from a scalar, or a list flag from a list.
func setFromFile(cmd *cobra.Command, opt option, file *viper.Viper) error {
	switch value := file.Get(opt.key).(type) {
	case []any:
		return setList(opt.flag, value)
	case map[string]any:
		return errors.New("a single value is needed here, not a section")
	default:
		return cmd.Flags().Set(opt.flag.Name, fmt.Sprint(value))
	}
}

func setList(flag *pflag.Flag, values []any) error {
	list, ok := flag.Value.(pflag.SliceValue)
	if !ok {
		return errors.New("a single value is needed here, not a list")
	}
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = fmt.Sprint(v)
	}
	if err := list.Replace(texts); err != nil {
		return err
	}
	flag.Changed = true
	return nil
}

// readConfigFile returns nil if path is empty.
func readConfigFile(path string, all []option) (*viper.Viper, error) {
	if path == "" {
		return nil, nil
	}
	ext := strings.TrimPrefix(filepath.Ext(path), ".")
	if !contains([]string{"yaml", "yml", "toml", "json"}, ext) {
		return nil, fmt.Errorf("configuration file %s: its name must end in .yaml, .toml or .json", path)
	}
	v := viper.New()
	v.SetConfigFile(path)
	if err := v.ReadInConfig(); err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			return nil, fmt.Errorf("configuration file: %w", pathErr)
		}
		return nil, fmt.Errorf("configuration file %s: %w", path, err)
	}
	return v, checkKeys(v, path, all)
}

func checkKeys(v *viper.Viper, path string, all []option) error {
	keys := make([]string, len(all))
	for i, opt := range all {
		keys[i] = opt.key
	}
	var errs []error
	for _, key := range sorted(v.AllKeys()) {
		switch {
		case !contains(keys, key):
			errs = append(errs, fmt.Errorf("%s: unknown key %q%s", path, key, didYouMean(key, keys)))
		case v.Get(key) == nil:
			errs = append(errs, fmt.Errorf("%s: key %q has no value", path, key))
		}
	}
	return errors.Join(errs...)
}

func checkEnv(env map[string]string, all []option) error {
	names := []string{envConfig}
	for _, opt := range all {
		names = append(names, opt.env)
	}
	var errs []error
	for name := range env {
		if !contains(names, name) {
			errs = append(errs, fmt.Errorf("unknown variable %s in the environment%s", name, didYouMean(name, names)))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}

func didYouMean(name string, candidates []string) string {
	if near := nearest(name, candidates); near != "" {
		return fmt.Sprintf(" (did you mean %s?)", near)
	}
	return ""
}

// nearest returns the candidate that takes the fewest edits to reach from name, if it is near enough to be meant.
func nearest(name string, candidates []string) string {
	best, bestEdits := "", max(2, len(name)/4)+1
	for _, c := range candidates {
		if n := edits(name, c); n < bestEdits {
			best, bestEdits = c, n
		}
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
