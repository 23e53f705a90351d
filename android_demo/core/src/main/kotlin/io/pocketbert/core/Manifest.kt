/*
 * What manifest.json says, checked before anything else is opened. BUNDLE.md describes every field.
 *
 * Takes the text of the file. Gives a Manifest. Leaves out: fields that apps do not need, and opening files (Bundle.kt).
 */
package io.pocketbert.core

/** The bundle, or a file of it, is not what this version reads; the message says which and what to do. */
open class BundleException(message: String, cause: Throwable? = null) : Exception(message, cause)

/** A file of the bundle: its path inside it with forward slashes, its size, and its hash in lower-case hexadecimal. */
data class BundleFile(val path: String, val bytes: Long, val sha256: String)

/** One runnable form of the model. */
data class Artifact(
    val format: String, // executorch, tflite, coreml
    val path: String,
    val entry: String, // method or signature; "{length}" in it stands for the number of ids
    val anyLength: Boolean, // takes 1 to maxLength ids; else only the manifest's lengths
    val activations: String, // which of the golden logits it must reproduce
    val files: List<BundleFile>,
)

/** Everything an app must know before it opens an artifact. */
data class Manifest(
    val labels: List<String>, // in the order of the logits
    val multiLabel: Boolean, // a sigmoid for each label; else a softmax over all
    val lengths: List<Int>, // ascending; ids are padded to the next one where anyLength is false
    val maxLength: Int, // the longest input in ids, special tokens included
    val padId: Int,
    val tokenizerTables: BundleFile,
    val golden: BundleFile,
    val artifacts: List<Artifact>,
) {
    /** The artifact of a format. Throws [BundleException] naming those there are. */
    fun artifact(format: String): Artifact = artifacts.find { it.format == format }
        ?: throw BundleException("the bundle has no $format artifact: it has ${artifacts.joinToString { it.format }}")

    /** The smallest of [lengths] that holds this many ids. */
    fun paddedLength(ids: Int): Int = lengths.first { it >= ids }

    companion object {
        const val FORMAT_VERSION = 1L
        const val FILE = "manifest.json"
        private const val TASK = "sequence-classification"

        /** Reads and checks the text of manifest.json. Throws [BundleException] naming the field that is wrong. */
        fun parse(text: String): Manifest {
            val content = parseJson(text)
            val version = (content as? Map<*, *>)?.get("format_version")
            if (version != FORMAT_VERSION) {
                throw BundleException("format_version is $version, this app reads $FORMAT_VERSION: export the bundle again")
            }
            return read(Fields(content)).also(::check)
        }

        private fun read(fields: Fields): Manifest {
            val task = fields.text("task")
            if (task != TASK) throw BundleException("task '$task' is unknown here: $TASK")
            return Manifest(
                labels = fields.texts("labels"),
                multiLabel = fields.flag("multi_label"),
                lengths = fields.ints("lengths").toList(),
                maxLength = fields.int("max_length"),
                padId = fields.int("pad_id"),
                tokenizerTables = file(fields.child("tokenizer_tables")),
                golden = file(fields.child("golden")),
                artifacts = fields.children("artifacts").map(::artifact),
            )
        }

        private fun artifact(fields: Fields) = Artifact(
            format = fields.text("format"),
            path = inside(fields.text("path")),
            entry = fields.text("entry"),
            anyLength = fields.flag("any_length"),
            activations = fields.text("activations"),
            files = fields.children("files").map(::file),
        )

        private fun file(fields: Fields) =
            BundleFile(inside(fields.text("path")), fields.long("bytes"), fields.text("sha256"))

        /** Refuses a path that leaves the bundle, on any system. */
        private fun inside(path: String): String {
            val parts = path.replace('\\', '/').split('/')
            if (parts.first().isEmpty() || ".." in parts || ':' in parts.first()) {
                throw BundleException("path '$path' leaves the bundle")
            }
            return path
        }

        private fun check(manifest: Manifest) {
            val (labels, lengths) = manifest.labels to manifest.lengths
            if (labels.isEmpty() || labels.distinct() != labels) throw BundleException("labels are empty or repeat")
            if (lengths.isEmpty() || lengths.first() < 1 || lengths.zipWithNext().any { (a, b) -> a >= b }) {
                throw BundleException("lengths are not ascending positive numbers")
            }
            if (lengths.last() != manifest.maxLength) {
                throw BundleException("the last of lengths is ${lengths.last()}, max_length is ${manifest.maxLength}")
            }
            if (manifest.padId < 0) throw BundleException("pad_id is negative")
        }
    }
}
