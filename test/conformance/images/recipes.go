package main

import imageutils "k8s.io/kubernetes/test/utils/image"

// toolsName is the base of the images that need a shell. It has no name of
// upstream's, and no spec asks for it.
const toolsName = "conformance/tools:latest"

// A recipe is how one image is made here.
type recipe struct {
	// names are those by which specs ask for the image.
	names []string
	// folder has the Dockerfile; without one, dockerfile is it.
	folder, dockerfile string
	// programs are the Go packages that are built into bin/ of the context.
	programs []string
	// packages are Debian's, unpacked with what they need into debian/.
	packages []string
	// files are copied from upstream's module to the context: to, from.
	files map[string]string
}

func named(ids ...imageutils.ImageID) []string {
	var names []string
	for _, id := range ids {
		names = append(names, imageutils.GetE2EImage(id))
	}
	return names
}

// on is a Dockerfile that adds a line or two to another image.
func on(base, lines string) string { return "FROM " + base + "\n" + lines + "\n" }

const upstreamImages = "k8s.io/kubernetes/test/images/"

// recipes are in the order in which they must be made. Labels keep images apart
// that are otherwise the same, as upstream's are.
func recipes() []recipe {
	agnhost := imageutils.GetE2EImage(imageutils.Agnhost)
	return []recipe{
		{names: []string{toolsName}, folder: "tools", packages: []string{
			"busybox-static", "bash", "coreutils", "curl", "wget", "bind9-dnsutils", "netcat-openbsd", "iproute2", "socat", "stress", "util-linux", "libc-bin",
		}},
		{names: named(imageutils.Pause), folder: "pause", programs: []string{"./images/pause"}},
		{names: named(imageutils.BusyBox), dockerfile: on(toolsName, "")},
		{names: named(imageutils.GlibcDnsTesting), dockerfile: on(toolsName, "LABEL for=dns")},
		{names: named(imageutils.IpcUtils), dockerfile: on(toolsName, "LABEL for=ipc")},
		{names: named(imageutils.NonRoot), dockerfile: on(toolsName, "USER 1234")},
		{names: named(imageutils.Agnhost), folder: "agnhost", programs: []string{upstreamImages + "agnhost"},
			files: map[string]string{"files/localhost.crt": "agnhost/porter/localhost.crt", "files/localhost.key": "agnhost/porter/localhost.key"}},
		{names: named(imageutils.AgnhostPrev), dockerfile: on(agnhost, "LABEL newer=false")},
		{names: named(imageutils.Kitten), dockerfile: on(agnhost, "COPY html/ /\nCMD [\"test-webserver\"]"),
			files: map[string]string{"html/kitten.jpg": "kitten/html/kitten.jpg", "html/data.json": "kitten/html/data.json"}},
		{names: named(imageutils.Nautilus), dockerfile: on(agnhost, "COPY html/ /\nCMD [\"test-webserver\"]"),
			files: map[string]string{"html/nautilus.jpg": "nautilus/html/nautilus.jpg", "html/data.json": "nautilus/html/data.json"}},
		{names: named(imageutils.Nginx), folder: "nginx", packages: []string{"nginx-light", "nginx-common"}},
		{names: named(imageutils.NginxNew), dockerfile: on(imageutils.GetE2EImage(imageutils.Nginx), "LABEL newer=true")},
		{names: named(imageutils.APIServer), dockerfile: on("scratch", "COPY --chmod=755 bin/sample-apiserver /sample-apiserver\nENTRYPOINT [\"/sample-apiserver\"]"),
			programs: []string{"k8s.io/sample-apiserver"}},
		{names: named(imageutils.Etcd), folder: "etcd", programs: []string{"go.etcd.io/etcd/server/v3"}},
		{names: named(imageutils.Nonewprivs), folder: "nonewprivs", programs: []string{upstreamImages + "nonewprivs"}},
		{names: named(imageutils.ResourceConsumer), folder: "consumer",
			programs: []string{upstreamImages + "resource-consumer", upstreamImages + "resource-consumer/consume-cpu"}},
		{names: named(imageutils.RegressionIssue74839), dockerfile: on("scratch", "COPY --chmod=755 bin/regression-issue-74839 /regression-issue-74839\nENTRYPOINT [\"/regression-issue-74839\"]"),
			programs: []string{upstreamImages + "regression-issue-74839"}},
	}
}
