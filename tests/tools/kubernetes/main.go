// Builds a kustomization as `kubectl apply -k` does, decodes each object into the type of its API without tolerating
// an unknown or repeated field, and prints the decoded objects as one JSON list.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	strict "sigs.k8s.io/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// One entry for each kind that the files may use.
var kinds = map[string]func() any{
	"v1/Namespace":                            func() any { return new(core.Namespace) },
	"v1/ConfigMap":                            func() any { return new(core.ConfigMap) },
	"v1/Service":                              func() any { return new(core.Service) },
	"apps/v1/Deployment":                      func() any { return new(apps.Deployment) },
	"apps/v1/StatefulSet":                     func() any { return new(apps.StatefulSet) },
	"autoscaling/v2/HorizontalPodAutoscaler":  func() any { return new(autoscaling.HorizontalPodAutoscaler) },
	"policy/v1/PodDisruptionBudget":           func() any { return new(policy.PodDisruptionBudget) },
	"networking.k8s.io/v1/NetworkPolicy":      func() any { return new(networking.NetworkPolicy) },
	"monitoring.coreos.com/v1/ServiceMonitor": func() any { return new(monitoring.ServiceMonitor) },
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(directory string) error {
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), directory)
	if err != nil {
		return err
	}
	text, err := built.AsYaml()
	if err != nil {
		return err
	}
	objects := []any{}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		object, err := decoded(document)
		if err != nil {
			return fmt.Errorf("%w in:\n%s", err, document)
		}
		objects = append(objects, object)
	}
	return json.NewEncoder(os.Stdout).Encode(objects)
}

func decoded(document []byte) (any, error) {
	var name struct{ APIVersion, Kind string }
	if err := yaml.Unmarshal(document, &name); err != nil {
		return nil, err
	}
	make, known := kinds[name.APIVersion+"/"+name.Kind]
	if !known {
		return nil, fmt.Errorf("no type is known for %s/%s", name.APIVersion, name.Kind)
	}
	object := make()
	text, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return nil, err
	}
	// As the API server does it: unlike encoding/json, it also minds upper and lower case in names of fields.
	faults, err := strict.UnmarshalStrict(text, object)
	return object, errors.Join(append(faults, err)...)
}
