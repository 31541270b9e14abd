package cert

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	admissionclient "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	coreclient "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// keeper keeps the certificate in its Secret and the webhook's configuration in
// step with it. Replicas need no leader for that: of several that renew it at once,
// the API server takes the first, and the others hear of that one.
type keeper struct {
	*Certificates
	maker   maker
	secrets coreclient.SecretInterface
	hooks   admissionclient.ValidatingWebhookConfigurationInterface
	secret  watched
	hook    watched
	heard   chan struct{} // holds one when the Secret or the configuration changed
}

// watched is the one object of a name, as it was heard of last.
type watched struct {
	key string
	cache.SharedInformer
}

func (w watched) get() (object any, there bool, err error) { return w.GetStore().GetByKey(w.key) }

func newKeeper(config *rest.Config, c *Certificates) (*keeper, error) {
	core, err := coreclient.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	admission, err := admissionclient.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	o := c.options
	k := &keeper{
		Certificates: c,
		maker:        newMaker(c.name, o.Service+"."+o.Namespace),
		secrets:      core.Secrets(o.Namespace),
		hooks:        admission.ValidatingWebhookConfigurations(),
		heard:        make(chan struct{}, 1),
	}
	k.secret, err = k.watch(core.RESTClient(), "secrets", o.Namespace, o.Secret, &corev1.Secret{})
	if err != nil {
		return nil, err
	}
	k.hook, err = k.watch(admission.RESTClient(), "validatingwebhookconfigurations", "", o.Webhook, &admissionregistrationv1.ValidatingWebhookConfiguration{})
	return k, err
}

// watch watches one object, so that a role that names it is enough.
func (k *keeper) watch(client rest.Interface, resource, namespace, name string, object runtime.Object) (watched, error) {
	both := cache.NewListWatchFromClient(client, resource, namespace, fields.OneTermEqualSelector(metav1.ObjectNameField, name))
	w := watched{cache.ObjectName{Namespace: namespace, Name: name}.String(), cache.NewSharedInformer(both, object, 0)}
	if err := w.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *cache.Reflector, err error) {
		k.trouble.Store(&err)
		cache.DefaultWatchErrorHandler(ctx, r, err)
	}); err != nil {
		return w, err
	}
	_, err := w.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { k.hear() },
		UpdateFunc: func(any, any) { k.hear() },
		DeleteFunc: func(any) { k.hear() },
	})
	return w, err
}

func (k *keeper) hear() {
	select {
	case k.heard <- struct{}{}:
	default:
	}
}

func (k *keeper) run(ctx context.Context) error {
	go k.secret.RunWithContext(ctx)
	go k.hook.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), k.secret.HasSynced, k.hook.HasSynced) {
		return nil
	}
	failed := 0
	for {
		pause := k.options.Check
		err := k.keep(ctx)
		k.trouble.Store(&err)
		if err != nil {
			log.FromContext(ctx).Error(err, "look after the certificate", "secret", k.secret.key)
			pause = min(pause, 100*time.Millisecond<<min(failed, 10))
			failed++
		} else {
			failed = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.heard:
		case <-time.After(pause):
		}
	}
}

// keep does the next step: the Secret holds what it should, then the API server is
// told whom to trust, and only then the certificate is shown. What it writes is
// heard of, which calls for the step after it.
func (k *keeper) keep(ctx context.Context) error {
	now := k.options.Now()
	secret := &corev1.Secret{}
	if known, there, err := k.secret.get(); err != nil {
		return err
	} else if there {
		secret = known.(*corev1.Secret)
	}
	parts, err := k.maker.renew(secret.Data, now)
	if err != nil {
		return err
	}
	if !maps.EqualFunc(parts, secret.Data, bytes.Equal) {
		return k.store(ctx, secret, parts)
	}
	shown, err := tls.X509KeyPair(parts[shownFile], parts[keyFile])
	if err != nil {
		return err
	}
	if err := k.trust(parts[issuerFile]); err != nil {
		return err
	}
	if told, err := k.tell(ctx, parts[issuerFile]); !told || err != nil {
		return err
	}
	k.shown.Store(&shown)
	return nil
}

// store writes the Secret, unless another replica was first.
func (k *keeper) store(ctx context.Context, secret *corev1.Secret, parts map[string][]byte) error {
	secret = secret.DeepCopy()
	secret.Namespace, secret.Name, secret.Data = k.options.Namespace, k.options.Secret, parts
	var err error
	if secret.ResourceVersion == "" {
		_, err = k.secrets.Create(ctx, secret, metav1.CreateOptions{})
	} else {
		_, err = k.secrets.Update(ctx, secret, metav1.UpdateOptions{})
	}
	if isOvertaken(err) {
		return nil
	}
	if err == nil {
		log.FromContext(ctx).Info("renewed the certificate", "secret", k.secret.key)
	}
	return err
}

// tell sees to it that the API server trusts those who issue the certificate, and
// reports whether it does already.
func (k *keeper) tell(ctx context.Context, issuers []byte) (told bool, err error) {
	known, there, err := k.hook.get()
	if err != nil || !there {
		return !there, err
	}
	hook := known.(*admissionregistrationv1.ValidatingWebhookConfiguration)
	// Not a whole object: that of a newer API may have more than is read here.
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	patch := []operation{{"replace", "/metadata/resourceVersion", hook.ResourceVersion}}
	for i, w := range hook.Webhooks {
		if !bytes.Equal(w.ClientConfig.CABundle, issuers) {
			patch = append(patch, operation{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), issuers})
		}
	}
	if len(patch) == 1 {
		return true, nil
	}
	text, err := json.Marshal(patch)
	if err != nil {
		return false, err
	}
	if _, err := k.hooks.Patch(ctx, hook.Name, types.JSONPatchType, text, metav1.PatchOptions{}); !isOvertaken(err) {
		return false, err
	}
	return false, nil
}

// isOvertaken reports whether somebody else was first, of which we shall hear.
func isOvertaken(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
}
