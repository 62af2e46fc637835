// Command kube-strict reads YAML documents on standard input and decodes each one into the type that Kubernetes' own Go packages have for it. A field
// that the type lacks, a field given twice, a value of another kind: all of them are errors, as they are for an API server that is asked to be strict.
//
// It prints a line for each document that it took, and ends with 1 at the first one that it does not take. A kind that it has no type for is an error
// too, unless it is named as an argument (talos.dev/v1alpha1/ServiceAccount): of a custom resource the head alone is looked at.
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println("kube-strict with k8s.io/api", version())
		return
	}
	count, err := check(os.Stdin, os.Args[1:])
	if err == nil && count == 0 {
		err = errors.New("there is none")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "document %d: %v\n", count+1, err)
		os.Exit(1)
	}
}

// version is that of the types.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "k8s.io/api" {
				return module.Version
			}
		}
	}
	return "unknown"
}

// check reads all documents, and returns how many were taken before the first one that was not.
func check(input io.Reader, custom []string) (int, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{appsv1.AddToScheme, batchv1.AddToScheme, corev1.AddToScheme, rbacv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return 0, err
		}
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(input))
	count := 0
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return count, nil
		}
		if err != nil {
			return count, err
		}
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		if err := one(document, decoder, custom); err != nil {
			return count, err
		}
		count++
	}
}

// one decodes a document, and says what it was.
func one(document []byte, decoder runtime.Decoder, custom []string) error {
	var head metav1.PartialObjectMetadata
	if err := yaml.Unmarshal(document, &head); err != nil {
		return err
	}
	kind := head.APIVersion + "/" + head.Kind
	if problems := validation.IsDNS1123Subdomain(head.Name); len(problems) > 0 {
		return fmt.Errorf("%s: metadata.name %q: %v", kind, head.Name, problems)
	}
	if problems := validation.IsDNS1123Label(head.Namespace); head.Namespace != "" && len(problems) > 0 {
		return fmt.Errorf("%s %s: metadata.namespace %q: %v", kind, head.Name, head.Namespace, problems)
	}
	if !slices.Contains(custom, kind) {
		if _, _, err := decoder.Decode(document, nil, nil); err != nil {
			return fmt.Errorf("%s %s: %w", kind, head.Name, err)
		}
	}
	fmt.Println(kind, head.Name)
	return nil
}
