/*
 * What manifest.json says, checked before anything else is opened. BUNDLE.md describes every field.
 *
 * Takes the bytes of the file. Returns a Manifest. Leaves out: fields that apps do not need, and opening files (Bundle.kt).
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

/** What a bundle is for, by its name in the manifest, and the class that opens such a bundle. */
enum class Task(val id: String, internal val opener: String, internal val pairs: Set<Boolean>) {
    SEQUENCE_CLASSIFICATION("sequence-classification", "TextClassifier", setOf(false, true)),
    TOKEN_CLASSIFICATION("token-classification", "TokenClassifier", setOf(false)),
    QUESTION_ANSWERING("question-answering", "QuestionAnswerer", setOf(true)),
}

/** Everything an app must know before it opens an artifact. */
data class Manifest(
    val task: Task,
    val pairs: Boolean, // takes two texts as well; a question and the text to answer it from always are two
    val outputs: List<String>, // their names, in the order of what an Engine gives
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

    /** How many logits there are for a text, or for each id: one for each label, or start and end. */
    internal val columns get() = if (task == Task.QUESTION_ANSWERING) 2 else labels.size

    /** How many times there are that many logits for so many ids. */
    internal fun rows(ids: Int) = if (task == Task.SEQUENCE_CLASSIFICATION) 1 else ids

    companion object {
        const val FORMAT_VERSION = 1L
        const val FILE = "manifest.json"
        private const val SEAL_START = ",\n \"sha256\": \""
        private const val SEAL_END = "\"\n}\n"
        private const val SEAL_DIGITS = 64 // of a sha256 in hexadecimal
        private const val LENGTH = "{length}"
        private val SHA256 = Regex("[0-9a-f]{64}")

        // What a manifest may say that has no seal.
        private val FIRST_FIELDS = setOf(
            "format_version", "task", "pairs", "architecture", "labels", "multi_label", "lengths", "max_length", "pad_id", "scheme",
            "input", "output", "outputs", "tokenizer", "tokenizer_tables", "golden", "artifacts", "source", "tools",
        )

        /** Reads and checks the bytes of manifest.json. Throws [BundleException] naming the field that is wrong. */
        fun parse(file: ByteArray): Manifest {
            val content = parseJson(file.decodeToString())
            val version = (content as? Map<*, *>)?.get("format_version")
            if (version != FORMAT_VERSION) {
                throw BundleException("format_version is $version, this app reads $FORMAT_VERSION: export the bundle again")
            }
            return read(Fields(content)).also(::check).also { checkSeal(file, content) }
        }

        /** The seal is the hash of all bytes before it. The first bundles have none; then every field is one of theirs. */
        private fun checkSeal(file: ByteArray, content: Map<*, *>) {
            val body = file.size - SEAL_START.length - SEAL_DIGITS - SEAL_END.length
            val end = if (body < 0) "" else file.decodeToString(body)
            if (end.startsWith(SEAL_START) && end.endsWith(SEAL_END)) {
                if (end.substring(SEAL_START.length).take(SEAL_DIGITS) == sha256(file.copyOf(body))) return
                throw BundleException("it is not the file that was exported: copy or export the bundle again")
            }
            val unknown = content.keys.find { it !in FIRST_FIELDS } ?: return
            throw BundleException("'$unknown' is unknown and no seal vouches for it: export the bundle again")
        }

        private fun read(fields: Fields): Manifest {
            val id = fields.text("task")
            val task = Task.entries.find { it.id == id } ?: throw BundleException("task '$id' is unknown here: ${Task.entries.joinToString { it.id }}")
            val labels = fields.texts("labels")
            return Manifest(
                task = task,
                pairs = if ("pairs" in fields) fields.flag("pairs") else false,
                outputs = outputs(fields, task, labels.size),
                labels = labels,
                multiLabel = fields.flag("multi_label"),
                lengths = fields.ints("lengths").toList(),
                maxLength = fields.int("max_length"),
                padId = fields.int("pad_id"),
                tokenizerTables = file(fields.child("tokenizer_tables")),
                golden = file(fields.child("golden")),
                artifacts = fields.children("artifacts").map(::artifact),
            )
        }

        /** The names of what every artifact of a task gives; a question's answer has two outputs, all else has one. */
        private fun outputs(fields: Fields, task: Task, labels: Int): List<String> {
            val expected: List<Pair<String, List<Long?>>> = when (task) {
                Task.SEQUENCE_CLASSIFICATION -> listOf("logits" to listOf(1L, labels.toLong()))
                Task.TOKEN_CLASSIFICATION -> listOf("logits" to listOf(1L, null, labels.toLong()))
                Task.QUESTION_ANSWERING -> listOf("start_logits", "end_logits").map { it to listOf(1L, null) }
            }
            val (own, other) = if (expected.size == 1) "output" to "outputs" else "outputs" to "output"
            if (other in fields) throw BundleException("'$other' belongs to another task than ${task.id}")
            val found = if (expected.size == 1) listOf(fields.child(own)) else fields.children(own)
            if (found.map { it.text("name") to it.list("shape") } != expected || found.any { it.text("dtype") != "float32" }) {
                val shown = expected.joinToString { (name, shape) -> "\"$name\", float32, $shape" }
                throw BundleException("$own is not $shown, which ${task.id} with $labels labels gives")
            }
            return expected.map { it.first }
        }

        private fun artifact(fields: Fields) = Artifact(
            format = fields.text("format"),
            path = inside(fields.text("path")),
            entry = fields.text("entry"),
            anyLength = fields.flag("any_length"),
            activations = fields.text("activations"),
            files = fields.children("files").map(::file),
        )

        private fun file(fields: Fields): BundleFile {
            val (bytes, sha256) = fields.long("bytes") to fields.text("sha256")
            if (bytes < 0 || !SHA256.matches(sha256)) throw BundleException("a file's bytes or sha256 are none: $bytes, '$sha256'")
            return BundleFile(inside(fields.text("path")), bytes, sha256)
        }

        /** Refuses a path that leaves the bundle, on any system. */
        private fun inside(path: String): String {
            val parts = path.replace('\\', '/').split('/')
            if (parts.first().isEmpty() || ".." in parts || ':' in parts.first() || '\u0000' in path) {
                throw BundleException("path '$path' leaves the bundle")
            }
            return path
        }

        private fun check(manifest: Manifest) {
            val (labels, lengths) = manifest.labels to manifest.lengths
            val task = manifest.task
            if (labels.isEmpty() != (task == Task.QUESTION_ANSWERING) || labels.distinct() != labels) {
                throw BundleException("labels repeat, are empty, or belong to another task")
            }
            if (manifest.multiLabel && task != Task.SEQUENCE_CLASSIFICATION) throw BundleException("multi_label is true, which ${task.id} cannot be")
            if (manifest.pairs !in task.pairs) throw BundleException("pairs is ${manifest.pairs}, which ${task.id} cannot be")
            if (lengths.isEmpty() || lengths.first() < 1 || lengths.zipWithNext().any { (a, b) -> a >= b }) {
                throw BundleException("lengths are not ascending positive numbers")
            }
            if (lengths.last() != manifest.maxLength) {
                throw BundleException("the last of lengths is ${lengths.last()}, max_length is ${manifest.maxLength}")
            }
            if (manifest.padId < 0) throw BundleException("pad_id is negative")
            checkArtifacts(manifest.artifacts)
        }

        private fun checkArtifacts(artifacts: List<Artifact>) {
            val formats = artifacts.map { it.format }
            if (formats.isEmpty() || formats.distinct() != formats) throw BundleException("artifacts are none, or two of a format: $formats")
            for (artifact in artifacts) {
                val paths = artifact.files.map { it.path }
                if (paths.isEmpty() || paths.any { it != artifact.path && !it.startsWith("${artifact.path}/") }) {
                    throw BundleException("the ${artifact.format} artifact is '${artifact.path}', its files are $paths")
                }
                if (artifact.entry.isEmpty() || artifact.entry.replace(LENGTH, "").any { it in "{}" }) {
                    throw BundleException("entry '${artifact.entry}' of the ${artifact.format} artifact is no name with $LENGTH")
                }
            }
        }
    }
}
